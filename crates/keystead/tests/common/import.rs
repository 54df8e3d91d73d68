//! The import as a child process, and sources for it that are no Keystead.

use super::kmip::{Credentials, Kmip};
use super::scene::{Scene, enabled, scene};
use keystead_conformance::client::Endpoint;
use keystead_kmip::Tag;
use keystead_kmip::attribute::Attribute;
use keystead_kmip::enumeration::{Enumeration as _, Operation, ResultReason, ResultStatus};
use keystead_kmip::message::RequestMessage;
use keystead_kmip::request::Request;
use keystead_kmip::ttlv::{HEADER_BYTES, Node, Value, decode, encode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::Value as Json;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

/// Two SVMs, `svm1` with objects to be moved, and `svm2`.
pub struct Two {
    pub scene: Scene,
    pub destination: Credentials,
    pub folder: tempfile::TempDir,
}

impl Two {
    pub async fn new() -> Self {
        let scene = scene().await;
        scene.node.svm("svm2").await;
        enabled(&scene.node, &scene.kms, &scene.key, "svm2").await;
        let destination = Credentials::issue(&scene.node, "svm2").await;
        Kmip::connect_new(&destination.endpoint(scene.node.ekmip)).await;
        Self { scene, destination, folder: tempfile::tempdir().unwrap() }
    }

    pub fn arguments(&self) -> Vec<String> {
        let address = self.scene.node.ekmip.to_string();
        let mut arguments = files(self.folder.path(), "source", &address, &self.scene.client);
        arguments.extend(files(self.folder.path(), "destination", &address, &self.destination));
        arguments.extend(["--timeout".to_owned(), "20".to_owned()]);
        arguments
    }

    pub fn run(&self, more: &[&str]) -> Run {
        Run::of(self.folder.path(), &self.arguments(), more)
    }

    pub fn there(&self) -> Kmip {
        speaking(&self.destination.endpoint(self.scene.node.ekmip), 2, 1)
    }

    pub fn source(&self) -> Kmip {
        self.scene.speaking(2, 1)
    }
}

fn speaking(endpoint: &Endpoint, major: i32, minor: i32) -> Kmip {
    let mut kmip = Kmip::connect(endpoint);
    (kmip.major, kmip.minor) = (major, minor);
    kmip
}

/// A run of the import that has ended.
pub struct Run {
    pub code: i32,
    /// What it wrote to both outputs.
    pub said: String,
    /// Its report; null where there is none.
    pub report: Json,
    text: String,
}

impl Run {
    /// Runs it to its end.
    pub fn of(folder: &Path, arguments: &[String], more: &[&str]) -> Self {
        let _ = std::fs::remove_file(folder.join("report.json"));
        let output = tokio::runtime::Handle::try_current().map_or_else(
            |_| command(folder, arguments, more).output().unwrap(),
            |_| tokio::task::block_in_place(|| command(folder, arguments, more).output().unwrap()),
        );
        Self::ended(folder, &output)
    }

    /// Starts it.
    pub fn start(folder: &Path, arguments: &[String], more: &[&str]) -> Child {
        command(folder, arguments, more).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    /// The program with these arguments alone.
    pub fn plain(folder: &Path, arguments: &[&str]) -> Self {
        Self::ended(folder, &Command::new(env!("CARGO_BIN_EXE_keystead")).args(arguments).stdin(Stdio::null()).output().unwrap())
    }

    fn ended(folder: &Path, output: &Output) -> Self {
        let text = std::fs::read_to_string(folder.join("report.json")).unwrap_or_default();
        let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Self { code: output.status.code().unwrap_or(-1), said, report: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// How many objects had an outcome.
    pub fn total(&self, outcome: &str) -> usize {
        self.report["totals"][outcome].as_u64().unwrap_or_else(|| panic!("no report: {}", self.said)) as usize
    }

    /// Neither the report nor what was said has these bytes, as they are, in hexadecimal or in base64.
    pub fn holds_nothing_of(&self, secret: &[u8]) {
        use base64::Engine as _;
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let base64 = base64::engine::general_purpose::STANDARD.encode(secret);
        let list = format!("{secret:?}");
        for text in [&self.said, &self.text] {
            assert!(!text.as_bytes().windows(secret.len()).any(|window| window == secret));
            assert!(!text.to_lowercase().contains(&hex) && !text.contains(&base64) && !text.contains(list.trim_matches(['[', ']'])));
        }
    }
}

fn command(folder: &Path, arguments: &[String], more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_keystead"));
    command.args(["ekmip", "import"]).args(arguments).args(more).arg("--report").arg(folder.join("report.json")).stdin(Stdio::null());
    command
}

/// The arguments of one side, with its files.
pub fn files(folder: &Path, side: &str, address: &str, credentials: &Credentials) -> Vec<String> {
    let mut arguments = vec![format!("--{side}"), address.to_owned()];
    for (name, pem) in [("ca", &credentials.ca_certificate), ("cert", &credentials.certificate), ("key", &credentials.private_key)] {
        let path = folder.join(format!("{side}-{name}.pem"));
        std::fs::write(&path, pem).unwrap();
        arguments.extend([format!("--{side}-{name}"), path.display().to_string()]);
    }
    arguments
}

/// A server that answers what a test says: bytes; none at all, and it ends the connection; `None`, and it leaves it open.
pub struct Fake {
    pub address: SocketAddr,
    credentials: Credentials,
}

impl Fake {
    pub fn start(answers: impl Fn(&RequestMessage<'_, '_>) -> Option<Vec<u8>> + Send + Sync + 'static) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap())
            .unwrap();
        let (config, answers) = (Arc::new(config), Arc::new(answers));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (config, answers) = (Arc::clone(&config), Arc::clone(&answers));
                std::thread::spawn(move || serve(StreamOwned::new(ServerConnection::new(config).unwrap(), stream), &*answers));
            }
        });
        let (certificate, private_key) = (made.cert.pem(), made.signing_key.serialize_pem());
        Self { address, credentials: Credentials { uuid: String::new(), ca_certificate: certificate.clone(), certificate, private_key } }
    }

    /// The arguments for it as the source.
    pub fn arguments(&self, folder: &Path) -> Vec<String> {
        files(folder, "source", &self.address.to_string(), &self.credentials)
    }
}

fn serve(mut stream: StreamOwned<ServerConnection, std::net::TcpStream>, answers: &(dyn Fn(&RequestMessage<'_, '_>) -> Option<Vec<u8>> + Send + Sync)) {
    loop {
        let mut request = vec![0; HEADER_BYTES];
        if stream.read_exact(&mut request).is_err() {
            return;
        }
        let length = u32::from_be_bytes(request[4..8].try_into().unwrap()) as usize;
        request.resize(HEADER_BYTES + length, 0);
        if stream.read_exact(&mut request[HEADER_BYTES..]).is_err() {
            return;
        }
        let node = decode(&request).unwrap();
        let Some(answer) = answers(&RequestMessage::from_node(&node).unwrap()) else { continue };
        if answer.is_empty() || stream.write_all(&answer).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// A small server of KMIP 1.2 with three active AES keys, `key-1` to `key-3`, of the same bytes; each is linked to the one before, and has an attribute that nobody knows.
pub fn answers_like_a_server(request: &RequestMessage<'_, '_>, key: &[u8]) -> Option<Vec<u8>> {
    let item = &request.items[0];
    Some(match item.request(request.version).unwrap() {
        Request::DiscoverVersions(_) => spoken(&[(1, 2)]),
        Request::Locate(_) => listed((1..=3).map(|n| format!("key-{n}")).collect()),
        Request::Get { id, .. } => {
            let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, key.to_vec())]);
            let block = vec![
                Node::new(Tag::KeyFormatType, Value::Enumeration(1)),
                value,
                Node::new(Tag::CryptographicAlgorithm, Value::Enumeration(3)),
                Node::integer(Tag::CryptographicLength, key.len() as i32 * 8),
            ];
            let object = Node::structure(Tag::SymmetricKey, vec![Node::structure(Tag::KeyBlock, block)]);
            success(Operation::Get, vec![Node::new(Tag::ObjectType, Value::Enumeration(2)), Node::text(Tag::UniqueIdentifier, id.unwrap().to_owned()), object])
        }
        Request::GetAttributes { id, .. } => {
            let attribute =
                |name: &'static str, value| Node::structure(Tag::Attribute, vec![Node::text(Tag::AttributeName, name), Node::new(Tag::AttributeValue, value)]);
            let number: u32 = id.unwrap()[4..].parse().unwrap();
            let link =
                vec![Node::new(Tag::LinkType, Value::Enumeration(0x10a)), Node::text(Tag::LinkedObjectIdentifier, format!("key-{}", number.saturating_sub(1)))];
            let attributes = vec![
                Node::text(Tag::UniqueIdentifier, id.unwrap().to_owned()),
                attribute("Object Type", Value::Enumeration(2)),
                attribute("State", Value::Enumeration(2)),
                attribute("Link", Value::Structure(link)),
                attribute("Vendor's Own", Value::Integer(1)),
            ];
            success(Operation::GetAttributes, attributes)
        }
        other => panic!("a source is only read: {other:?}"),
    })
}

/// The answer to a Locate.
pub fn listed(ids: Vec<String>) -> Vec<u8> {
    success(Operation::Locate, ids.into_iter().map(|id| Node::text(Tag::UniqueIdentifier, id)).collect())
}

/// The answer to a Get Attributes of an AES key.
pub fn attributes(id: &str, attributes: &[Attribute<'static>]) -> Vec<u8> {
    let kind = Attribute::new(Tag::ObjectType, Value::Enumeration(2));
    let nodes = std::iter::once(&kind).chain(attributes).map(|attribute| attribute.to_node().into_owned());
    success(Operation::GetAttributes, std::iter::once(Node::text(Tag::UniqueIdentifier, id.to_owned())).chain(nodes).collect())
}

/// The refusal of an operation.
pub fn refused(operation: Operation, reason: ResultReason) -> Vec<u8> {
    let item = vec![
        Node::new(Tag::Operation, Value::Enumeration(operation.number())),
        Node::new(Tag::ResultStatus, Value::Enumeration(ResultStatus::OperationFailed.number())),
        Node::new(Tag::ResultReason, Value::Enumeration(reason.number())),
        Node::text(Tag::ResultMessage, "the test says so"),
    ];
    message(item)
}

/// The versions that a server says it speaks.
pub fn spoken(versions: &[(i32, i32)]) -> Vec<u8> {
    let version = |(major, minor): &(i32, i32)| {
        Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, *major), Node::integer(Tag::ProtocolVersionMinor, *minor)])
    };
    success(Operation::DiscoverVersions, versions.iter().map(version).collect())
}

fn success(operation: Operation, payload: Vec<Node<'static>>) -> Vec<u8> {
    let item = vec![
        Node::new(Tag::Operation, Value::Enumeration(operation.number())),
        Node::new(Tag::ResultStatus, Value::Enumeration(ResultStatus::Success.number())),
        Node::structure(Tag::ResponsePayload, payload),
    ];
    message(item)
}

fn message(item: Vec<Node<'static>>) -> Vec<u8> {
    let version = vec![Node::integer(Tag::ProtocolVersionMajor, 1), Node::integer(Tag::ProtocolVersionMinor, 2)];
    let header = vec![Node::structure(Tag::ProtocolVersion, version), Node::new(Tag::TimeStamp, Value::DateTime(1)), Node::integer(Tag::BatchCount, 1)];
    let mut out = Vec::new();
    encode(&Node::structure(Tag::ResponseMessage, vec![Node::structure(Tag::ResponseHeader, header), Node::structure(Tag::BatchItem, item)]), &mut out);
    out
}
