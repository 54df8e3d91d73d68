//! The runner as a user runs it: what it prints, and how it exits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use keystead_kmip::Tag;
use keystead_kmip::enumeration::{Operation, ResultStatus};
use keystead_kmip::ttlv::{Node, Value, encode};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

/// A server that answers whatever it is asked with the same Discover Versions.
fn server(folder: &Path) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    for name in ["ca.pem", "cert.pem"] {
        std::fs::write(folder.join(name), made.cert.pem()).unwrap();
    }
    std::fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(made.cert.der().to_vec())], PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let mut stream = StreamOwned::new(ServerConnection::new(Arc::clone(&config)).unwrap(), stream);
            let mut request = [0; 1024];
            while matches!(stream.read(&mut request), Ok(1..)) {
                stream.write_all(&answer()).unwrap();
                stream.flush().unwrap();
            }
        }
    });
    address
}

fn version() -> Node<'static> {
    Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, 1), Node::integer(Tag::ProtocolVersionMinor, 1)])
}

fn answer() -> Vec<u8> {
    let header = vec![version(), Node::new(Tag::TimeStamp, Value::DateTime(1_700_000_000)), Node::integer(Tag::BatchCount, 1)];
    let item = vec![
        Node::enumeration(Tag::Operation, Operation::DiscoverVersions),
        Node::enumeration(Tag::ResultStatus, ResultStatus::Success),
        Node::structure(Tag::ResponsePayload, vec![version()]),
    ];
    let mut out = Vec::new();
    encode(&Node::structure(Tag::ResponseMessage, vec![Node::structure(Tag::ResponseHeader, header), Node::structure(Tag::BatchItem, item)]), &mut out);
    out
}

/// A case that asks for the versions, and expects 1.`minor`.
fn case(minor: i32) -> String {
    let version = |minor| {
        format!(
            "<ProtocolVersion><ProtocolVersionMajor type=\"Integer\" value=\"1\"/><ProtocolVersionMinor type=\"Integer\" value=\"{minor}\"/></ProtocolVersion>"
        )
    };
    format!(
        "<KMIP><RequestMessage><RequestHeader>{0}<BatchCount type=\"Integer\" value=\"1\"/></RequestHeader><BatchItem><Operation type=\"Enumeration\" value=\"DiscoverVersions\"/><RequestPayload/></BatchItem></RequestMessage>\
         <ResponseMessage><ResponseHeader>{0}<TimeStamp type=\"DateTime\" value=\"$NOW\"/><BatchCount type=\"Integer\" value=\"1\"/></ResponseHeader><BatchItem><Operation type=\"Enumeration\" value=\"DiscoverVersions\"/>\
         <ResultStatus type=\"Enumeration\" value=\"Success\"/><ResponsePayload>{1}</ResponsePayload></BatchItem></ResponseMessage></KMIP>",
        version(1),
        version(minor)
    )
}

fn run(folder: &Path, address: SocketAddr, cases: &Path) -> (Option<i32>, String) {
    let Output { status, stdout, stderr } = Command::new(env!("CARGO_BIN_EXE_keystead-conformance"))
        .arg(cases)
        .args(["--address", &address.to_string()])
        .args(["--ca", "ca.pem", "--cert", "cert.pem", "--key", "key.pem"])
        .current_dir(folder)
        .output()
        .unwrap();
    (status.code(), format!("{}{}", String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr)))
}

#[test]
fn a_line_a_case_the_totals_and_an_exit_code_that_tells() {
    let folder = tempfile::tempdir().unwrap();
    let address = server(folder.path());
    let cases = folder.path().join("cases");
    std::fs::create_dir(&cases).unwrap();

    let (code, said) = run(folder.path(), address, &cases);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no case"), "{said}");

    let case_1_1 = case(1).replace("value=\"$NOW\"", "value=\"2023-11-14T22:13:20+00:00\"");
    std::fs::write(cases.join("GOOD.xml"), &case_1_1).unwrap();
    let (code, said) = run(folder.path(), address, &cases);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("pass  GOOD") && said.contains("passes 1 of 1"), "{said}");

    std::fs::write(cases.join("BAD.xml"), case(4).replace("value=\"$NOW\"", "value=\"2023-11-14T22:13:20+00:00\"")).unwrap();
    std::fs::write(cases.join("UGLY.xml"), "<KMIP>").unwrap();
    let (code, said) = run(folder.path(), address, &cases);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("FAIL  BAD: ") && said.contains("ProtocolVersionMinor") && said.contains("FAIL  UGLY: ") && said.contains("passes 1 of 3"), "{said}");

    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, said) = run(folder.path(), nobody, &cases);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("passes 0 of 3"), "{said}");

    let (code, said) = run(folder.path(), address, &folder.path().join("nowhere"));
    assert_eq!(code, Some(2), "{said}");
}
