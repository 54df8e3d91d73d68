//! A KMIP client for tests: one connection, requests made of items, answers looked into by tag.

use super::Node as Keystead;
use keystead_conformance::client::{Client, Endpoint, TestEndpoint as _};
use keystead_kmip::attribute::{Attribute, DEFINITIONS, Identity, reference_to_node};
use keystead_kmip::enumeration::{BatchErrorContinuationOption, CryptographicAlgorithm, Enumeration, ObjectType, Operation, ResultReason, SecretDataType};
use keystead_kmip::ttlv::{Node, Value};
use keystead_kmip::{Tag, Version};
use serde_json::{Value as Json, json};

/// The credentials of a client, as the REST API gives them.
#[derive(Clone)]
pub struct Credentials {
    pub uuid: String,
    pub certificate: String,
    pub private_key: String,
    pub ca_certificate: String,
}

impl Credentials {
    /// Has the REST API issue a certificate.
    pub async fn issue(node: &Keystead, svm: &str) -> Self {
        let body = json!({ "svm": { "name": svm }, "common_name": format!("client of {svm}") });
        let (status, body) = node.ask("POST", "/security/ekmip/clients?return_records=true", Some(body)).await;
        assert_eq!(status, 201, "{body}");
        Self::from_record(&body["records"][0])
    }

    /// The same from a node that may die.
    pub async fn issue_by(node: &super::run::Api, svm: &str) -> Self {
        let body = json!({ "svm": { "name": svm }, "common_name": format!("client of {svm}") });
        let (status, body) = node.call("POST", "/security/ekmip/clients?return_records=true", Some(body)).await.unwrap();
        assert_eq!(status, 201, "{body}");
        Self::from_record(&body["records"][0])
    }

    pub fn from_record(record: &Json) -> Self {
        let text = |member: &str| record[member].as_str().unwrap_or_default().to_owned();
        Self { uuid: text("uuid"), certificate: text("certificate"), private_key: text("private_key"), ca_certificate: text("ca_certificate") }
    }

    pub fn endpoint(&self, address: std::net::SocketAddr) -> Endpoint {
        Endpoint::from_pem(&address.to_string(), self.ca_certificate.as_bytes(), self.certificate.as_bytes(), self.private_key.as_bytes()).unwrap()
    }

    /// With one version of TLS alone.
    pub fn endpoint_at(&self, address: std::net::SocketAddr, version: &'static rustls::SupportedProtocolVersion) -> Endpoint {
        let (ca, certificate, key) = (self.ca_certificate.as_bytes(), self.certificate.as_bytes(), self.private_key.as_bytes());
        Endpoint::from_pem_at(&address.to_string(), ca, certificate, key, &[version]).unwrap()
    }
}

/// How many keys are made or read by one message, where many are: what is made so goes into one transaction of the store.
const TOGETHER: usize = 50;

/// A connection.
pub struct Kmip {
    client: Client,
    /// The major version that it speaks.
    pub major: i32,
    /// The minor version.
    pub minor: i32,
}

/// The answer to one item.
pub struct Answer(pub Node<'static>);

impl Kmip {
    pub fn connect(endpoint: &Endpoint) -> Self {
        Self { client: Client::connect(endpoint).unwrap(), major: 1, minor: 4 }
    }

    /// The same where there may be no room for it.
    pub fn try_connect(endpoint: &Endpoint) -> Option<Self> {
        let client = tokio::task::block_in_place(|| Client::connect(endpoint)).ok()?;
        Some(Self { client, major: 1, minor: 4 })
    }

    /// The same for a client that was made a moment ago: the EKMIP server learns of it a moment later.
    pub async fn connect_new(endpoint: &Endpoint) -> Self {
        super::eventually("the client must be known", async || {
            let mut kmip = Self::connect(endpoint);
            kmip.try_call(Operation::Locate, vec![]).is_ok().then_some(kmip)
        })
        .await
    }

    pub fn handshake_kind(&self) -> Option<rustls::HandshakeKind> {
        self.client.handshake_kind()
    }

    /// One operation. `Err`: the connection was lost.
    pub fn try_call(&mut self, operation: Operation, payload: Vec<Node<'static>>) -> Result<Answer, String> {
        let answers = self.try_batch(vec![(operation, payload)], &[])?;
        Ok(answers.into_iter().next().unwrap())
    }

    /// One operation.
    pub fn call(&mut self, operation: Operation, payload: Vec<Node<'static>>) -> Answer {
        self.try_call(operation, payload).unwrap()
    }

    /// A batch, with further items of the header.
    pub fn try_batch(&mut self, items: Vec<(Operation, Vec<Node<'static>>)>, header: &[Node<'static>]) -> Result<Vec<Answer>, String> {
        let answer = tokio::task::block_in_place(|| self.client.call(&message_at(self.major, self.minor, items, header)))?;
        // Whatever was asked: no client is ever shown what its version does not have, but for the operation that it has named itself.
        if let Some(version) = Version::supported(self.major, self.minor) {
            let items = answer.items().iter().flat_map(Node::items).filter(|item| item.tag != Tag::Operation);
            items.for_each(|item| assert_eq!(keystead_kmip::versions::foreign(item, version, &[]), None, "shown to a client of {version}"));
        }
        Ok(answer.items().iter().filter(|item| item.tag == Tag::BatchItem).map(|item| Answer(item.clone())).collect())
    }

    /// Bytes as they are.
    pub fn raw(&mut self, bytes: &[u8]) -> Result<Node<'static>, String> {
        let answer = tokio::task::block_in_place(|| self.client.call_bytes(bytes))?;
        keystead_kmip::ttlv::decode(&answer).map(Node::into_owned).map_err(|error| error.to_string())
    }

    /// Makes an AES-256 key with these attributes beside the usual ones.
    pub fn create(&mut self, attributes: Vec<Attribute<'static>>) -> Answer {
        let mut all = usual();
        all.extend(attributes);
        self.call(Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), self.given(&all)])
    }

    pub fn created(&mut self, attributes: Vec<Attribute<'static>>) -> String {
        self.create(attributes).id()
    }

    /// Makes many AES-256 keys, some in each transaction of the store (a batch that is undone as a whole).
    pub fn created_together(&mut self, count: usize) -> Vec<String> {
        let undo = Node::enumeration(Tag::BatchErrorContinuationOption, BatchErrorContinuationOption::Undo);
        let mut ids = Vec::with_capacity(count);
        while ids.len() < count {
            let item = || (Operation::Create, vec![Node::enumeration(Tag::ObjectType, ObjectType::SymmetricKey), self.given(&usual())]);
            let items = std::iter::repeat_with(item).take(TOGETHER.min(count - ids.len())).collect();
            ids.extend(self.try_batch(items, std::slice::from_ref(&undo)).unwrap().iter().map(Answer::id));
        }
        ids
    }

    /// The materials of many keys.
    pub fn materials(&mut self, ids: &[String]) -> Vec<Vec<u8>> {
        let answers = ids.chunks(TOGETHER).flat_map(|some| {
            let items = some.iter().map(|id| (Operation::Get, vec![uid(id)])).collect();
            self.try_batch(items, &[]).unwrap()
        });
        answers.map(|answer| answer.material()).collect()
    }

    /// Registers secret data.
    pub fn register(&mut self, secret: &[u8], attributes: &[Attribute<'static>]) -> Answer {
        self.try_register(secret, attributes).unwrap()
    }

    /// The same. `Err`: the connection was lost.
    pub fn try_register(&mut self, secret: &[u8], attributes: &[Attribute<'static>]) -> Result<Answer, String> {
        let value = Node::structure(Tag::KeyValue, vec![Node::bytes(Tag::KeyMaterial, secret.to_vec())]);
        let block = Node::structure(Tag::KeyBlock, vec![Node::enumeration(Tag::KeyFormatType, keystead_kmip::enumeration::KeyFormatType::Opaque), value]);
        let data = Node::structure(Tag::SecretData, vec![Node::enumeration(Tag::SecretDataType, SecretDataType::Password), block]);
        self.try_call(Operation::Register, vec![Node::enumeration(Tag::ObjectType, ObjectType::SecretData), self.given(attributes), data])
    }

    /// Attributes for a new object, as the version writes them.
    pub fn given(&self, attributes: &[Attribute<'static>]) -> Node<'static> {
        if self.major < 2 { template(attributes) } else { held(Tag::Attributes, attributes) }
    }

    pub fn get(&mut self, id: &str) -> Answer {
        self.call(Operation::Get, vec![uid(id)])
    }

    pub fn with_id(&mut self, operation: Operation, id: &str) -> Answer {
        self.try_with_id(operation, id).unwrap()
    }

    /// The same. `Err`: the connection was lost.
    pub fn try_with_id(&mut self, operation: Operation, id: &str) -> Result<Answer, String> {
        self.try_call(operation, vec![uid(id)])
    }

    /// The names of the attributes of an object, as 1.x has them.
    pub fn attribute_list(&mut self, id: &str) -> Vec<String> {
        let answer = self.with_id(Operation::GetAttributeList, id);
        if self.major >= 2 {
            let references = answer.payload().items().iter().filter(|item| item.tag == Tag::AttributeReference);
            return references.map(|reference| Identity::from_reference(reference, Version::V2_1).unwrap().name().to_owned()).collect();
        }
        answer.payload().items().iter().filter(|item| item.tag == Tag::AttributeName).map(|item| text(&item.value)).collect()
    }

    /// The value of an attribute.
    pub fn attribute(&mut self, id: &str, name: &'static str) -> Option<Value<'static>> {
        if self.major >= 2 {
            let tag = DEFINITIONS.iter().find(|definition| definition.name == name).map(|definition| definition.tag);
            let identity = tag.map_or(Identity::Custom(name.into()), Identity::Known);
            let answer = self.call(Operation::GetAttributes, vec![uid(id), own(reference_to_node(&identity))]);
            let found = Attribute::all_from_node(answer.payload().find(Tag::Attributes).unwrap(), Version::V2_1).unwrap();
            return found.into_iter().next().map(|attribute| attribute.value);
        }
        let answer = self.call(Operation::GetAttributes, vec![uid(id), Node::text(Tag::AttributeName, name)]);
        answer.payload().find(Tag::Attribute).and_then(|attribute| attribute.find(Tag::AttributeValue)).map(|value| value.value.clone())
    }

    /// The identifiers of objects with these attributes.
    pub fn locate(&mut self, attributes: &[Attribute<'static>]) -> Vec<String> {
        let wanted = match self.major {
            1 => attributes.iter().map(|attribute| own(attribute.to_node())).collect(),
            _ => vec![held(Tag::Attributes, attributes)],
        };
        let answer = self.call(Operation::Locate, wanted);
        answer.payload().items().iter().map(|item| text(&item.value)).collect()
    }
}

impl Answer {
    /// Why it failed; `None` where it did not.
    pub fn reason(&self) -> Option<ResultReason> {
        match self.0.find(Tag::ResultReason)?.value {
            Value::Enumeration(number) => ResultReason::from_number(number),
            _ => None,
        }
    }

    pub fn message(&self) -> String {
        self.0.find(Tag::ResultMessage).map(|message| text(&message.value)).unwrap_or_default()
    }

    pub fn payload(&self) -> &Node<'static> {
        self.0.find(Tag::ResponsePayload).unwrap_or_else(|| panic!("it failed: {:?} {}", self.reason(), self.message()))
    }

    pub fn id(&self) -> String {
        text(&self.payload().find(Tag::UniqueIdentifier).unwrap().value)
    }

    /// The material of the object.
    pub fn material(&self) -> Vec<u8> {
        let object = self.payload().items().last().unwrap();
        let block = object.find(Tag::KeyBlock).unwrap();
        match &block.find(Tag::KeyValue).unwrap().find(Tag::KeyMaterial).unwrap().value {
            Value::ByteString(bytes) => bytes.to_vec(),
            other => panic!("{other:?}"),
        }
    }
}

/// The attributes of an AES-256 key that encrypts and decrypts.
fn usual() -> Vec<Attribute<'static>> {
    vec![
        Attribute::new(Tag::CryptographicAlgorithm, Value::Enumeration(CryptographicAlgorithm::AES.number())),
        Attribute::new(Tag::CryptographicLength, Value::Integer(256)),
        Attribute::new(Tag::CryptographicUsageMask, Value::Integer(12)),
    ]
}

/// A client that trusts the server's CA and has no certificate.
pub fn without_certificate(of: &Credentials, address: std::net::SocketAddr) -> Result<Client, String> {
    Ok(Client::connect(&Endpoint::anonymous(&address.to_string(), of.ca_certificate.as_bytes())?)?)
}

/// A request message of KMIP 1.x.
pub fn message(minor: i32, items: Vec<(Operation, Vec<Node<'static>>)>, header: &[Node<'static>]) -> Node<'static> {
    message_at(1, minor, items, header)
}

/// A request message.
pub fn message_at(major: i32, minor: i32, items: Vec<(Operation, Vec<Node<'static>>)>, header: &[Node<'static>]) -> Node<'static> {
    let version = Node::structure(Tag::ProtocolVersion, vec![Node::integer(Tag::ProtocolVersionMajor, major), Node::integer(Tag::ProtocolVersionMinor, minor)]);
    let mut head = vec![version];
    head.extend_from_slice(header);
    head.push(Node::integer(Tag::BatchCount, items.len() as i32));
    let mut message = vec![Node::structure(Tag::RequestHeader, head)];
    for (at, (operation, payload)) in items.into_iter().enumerate() {
        message.push(Node::structure(
            Tag::BatchItem,
            vec![
                Node::enumeration(Tag::Operation, operation),
                Node::bytes(Tag::UniqueBatchItemID, vec![at as u8]),
                Node::structure(Tag::RequestPayload, payload),
            ],
        ));
    }
    Node::structure(Tag::RequestMessage, message)
}

pub fn uid(id: &str) -> Node<'static> {
    Node::text(Tag::UniqueIdentifier, id.to_owned())
}

pub fn template(attributes: &[Attribute<'static>]) -> Node<'static> {
    Node::structure(Tag::TemplateAttribute, attributes.iter().map(|attribute| own(attribute.to_node())).collect())
}

/// Attributes as 2.x has them, in a structure.
pub fn held(tag: Tag, attributes: &[Attribute<'static>]) -> Node<'static> {
    Node::structure(tag, attributes.iter().map(|attribute| own(attribute.to_node_at(Version::V2_1))).collect())
}

pub fn own(node: Node<'_>) -> Node<'static> {
    node.into_owned()
}

pub fn text(value: &Value<'_>) -> String {
    match value {
        Value::TextString(text) => text.to_string(),
        other => panic!("{other:?} is no text"),
    }
}
