//! What the EKMIP server brings to the audit log.
//!
//! What makes, changes or takes away an object is recorded before it is committed and after. What hands a key out or uses it is counted, by certificate, address and object, and recorded as a sum: no Get ever
//! waits for a disk. Refusals are counted too. Of what a client sends, nothing gets into a record but identifiers of objects that there are, and names that the specification has.

use crate::identity::{Client, Refusal};
use keystead_audit::{Application, Begun, Certificate, Given, Key, Named, Record, State, Unrecorded, actor};
use keystead_kmip::attribute::Identity;
use keystead_kmip::enumeration::{Enumeration as _, Operation, ResultReason};
use keystead_kmip::message::RequestItem;
use keystead_kmip::request::Request;
use keystead_kmip::response::Response;
use keystead_kmip::{Failure, Version};
use keystead_manager::Manager;
use rustls::CertificateError;
use std::net::SocketAddr;
use std::time::Duration;
use uuid::Uuid;

/// The number of a connection that was refused, among what is counted; KMIP's operations have small ones.
const CONNECTION: u32 = 0x1002;
/// The same of an operation that was refused.
const REFUSED: u32 = 0x2000;
/// What a connection is called in records.
const CONNECT: &str = "connect";

/// Who is served on a connection.
#[derive(Debug)]
pub struct Actor {
    id: u128,
    /// The same from wherever it comes.
    who: u128,
    user: String,
    certificate: Option<Certificate>,
    peer: Option<SocketAddr>,
    session: Uuid,
    svm: Named,
}

/// What is recorded of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Each by itself, before and after.
    Recorded,
    /// Sums.
    Counted,
    /// Nothing, unless it is refused.
    Nothing,
}

/// Changes that stand in the log as begun.
pub struct Changes {
    records: Vec<Record>,
    since: Duration,
}

impl Actor {
    /// A client that was recognized.
    pub fn new(client: &Client, svm_name: &str, peer: SocketAddr) -> Self {
        let (common_name, serial_number) = client.names();
        let certificate = Certificate { fingerprint: keystead_audit::chain::hex(&client.fingerprint), serial_number };
        Self {
            id: actor(&[&client.fingerprint, peer.ip().to_string().as_bytes()]),
            who: actor(&[b"client", &client.fingerprint]),
            user: common_name,
            certificate: Some(certificate),
            peer: Some(peer),
            session: keystead_audit::new_id(),
            svm: Named { uuid: client.svm, name: svm_name.to_owned() },
        }
    }

    /// Nobody in particular, of an SVM.
    pub fn nobody(svm: Uuid) -> Self {
        Self { id: 0, who: 0, user: String::new(), certificate: None, peer: None, session: Uuid::nil(), svm: Named { uuid: svm, name: String::new() } }
    }

    fn record(&self, state: State, input: &str) -> Record {
        let mut record = Record::new(Application::Kmip, state, input);
        record.user = Some(self.user.clone());
        record.location = self.peer.map(|peer| peer.ip());
        record.port = self.peer.map(|peer| peer.port());
        record.session_id = Some(self.session);
        record.svm = Some(self.svm.clone());
        record.certificate.clone_from(&self.certificate);
        record
    }
}

/// What is recorded of the operation of this number.
pub fn kind(operation: u32) -> Kind {
    use Operation as O;
    match Operation::from_number(operation) {
        Some(
            O::Create
            | O::Register
            | O::Import
            | O::ReKey
            | O::Activate
            | O::Revoke
            | O::Destroy
            | O::AddAttribute
            | O::ModifyAttribute
            | O::DeleteAttribute
            | O::SetAttribute
            | O::AdjustAttribute,
        ) => Kind::Recorded,
        // Using a key up a little (its Usage Limits) changes it, but comes as often as the use.
        Some(O::Get | O::Export | O::Encrypt | O::Decrypt | O::GetUsageAllocation) => Kind::Counted,
        _ => Kind::Nothing,
    }
}

/// Records that changes begin, of items that the ID Placeholder was set before: on return the records survive the end of this process. `None`: there is nothing to record.
///
/// # Errors
/// General Failure: they cannot be recorded, and so not be made.
pub async fn begin(
    manager: &Manager,
    actor: &Actor,
    version: Version,
    items: &[RequestItem<'_, '_>],
    responses: &[Response<'_>],
    mut placeholder: Option<Uuid>,
) -> Result<Option<(Changes, Begun)>, Failure> {
    if !items.iter().any(|item| kind(item.operation) == Kind::Recorded) {
        return Ok(None);
    }
    let mut records = Vec::new();
    for (item, response) in items.iter().zip(responses) {
        if kind(item.operation) == Kind::Recorded {
            records.push(change(actor, version, item, response, placeholder));
        }
        // As the operations set it for the items behind them (section 4).
        placeholder = match Operation::from_number(item.operation) {
            Some(Operation::Create | Operation::Register | Operation::Import | Operation::ReKey) => id_of(response),
            Some(Operation::Locate) => None,
            _ => placeholder,
        };
    }
    let since = manager.monotonic();
    let begun = manager.audit().begin(records.clone()).await.map_err(|why| unrecorded(manager, &why))?;
    Ok(Some((Changes { records, since }, begun)))
}

impl Changes {
    /// Records how they have ended; `None`: they are made.
    pub async fn end(self, manager: &Manager, failure: Option<(&Failure, Version)>) {
        let duration = u64::try_from(manager.monotonic().saturating_sub(self.since).as_millis()).ok();
        let ended = self.records.into_iter().map(|mut record| {
            record.duration_ms = duration;
            record.state = if failure.is_some() { State::Error } else { State::Success };
            record.code = failure.map(|(failure, version)| failure.reason_in(version).name().to_owned());
            record
        });
        manager.audit().end(ended.collect()).await;
    }
}

/// The failure of what must not be done since it cannot be recorded.
pub fn unrecorded(manager: &Manager, why: &Unrecorded) -> Failure {
    let error = manager.unrecorded(why);
    tracing::debug!(%why, "an operation was refused since it cannot be recorded");
    Failure::new(ResultReason::GeneralFailure, error.message)
}

/// Counts an operation that was done.
///
/// # Errors
/// In strict mode, General Failure: it cannot be recorded, and so its answer must not go out.
pub fn counted(manager: &Manager, actor: &Actor, item: &RequestItem<'_, '_>, response: &Response<'_>) -> Result<(), Failure> {
    if kind(item.operation) != Kind::Counted {
        return Ok(());
    }
    let object = id_of(response);
    let key = Key { actor: actor.id, object: object.map_or(0, |object| object.as_u128()), what: item.operation, code: 0 };
    let make = || Record { object, ..actor.record(State::Success, name(item.operation)) };
    manager.audit().count(key, make).map_err(|why| unrecorded(manager, &why))
}

/// Counts an operation that has failed: each that would have been recorded, and others where they were not permitted.
pub fn failed(manager: &Manager, actor: &Actor, version: Version, item: &RequestItem<'_, '_>, failure: &Failure) {
    if kind(item.operation) == Kind::Nothing && failure.reason != ResultReason::PermissionDenied {
        return;
    }
    let reason = failure.reason_in(version);
    // An identifier that belongs to nothing is no more than what the client says.
    let object = if failure.reason == ResultReason::ItemNotFound { None } else { item.request(version).ok().and_then(|request| asked_for(&request)) };
    let key = Key { actor: actor.id, object: object.map_or(0, |object| object.as_u128()), what: REFUSED + item.operation, code: reason.number() };
    let make = || Record { object, code: Some(reason.name().to_owned()), ..actor.record(State::Error, name(item.operation)) };
    manager.audit().count_refusal(Some(actor.who), key, make, |own| further(actor, own, "operations"));
}

/// Counts the end of a connection whose client is none any more.
pub fn shown_out(manager: &Manager, actor: &Actor, refusal: &Refusal) {
    let why = words(refusal);
    let key = Key { actor: keystead_audit::actor(&[&actor.id.to_be_bytes(), why.as_bytes()]), object: 0, what: CONNECTION, code: 2 };
    let make = || Record { message: Some(format!("{why}: the connection was ended")), ..actor.record(State::Error, CONNECT) };
    manager.audit().count_refusal(Some(actor.who), key, make, |own| further(actor, own, CONNECT));
}

/// Counts a connection that was refused after its handshake: the certificate is known.
pub fn refused(manager: &Manager, client: Option<&Client>, peer: SocketAddr, why: &str) {
    let fingerprint = client.map(|client| client.fingerprint).unwrap_or_default();
    let key = Key { actor: actor(&[&fingerprint, peer.ip().to_string().as_bytes(), why.as_bytes()]), object: 0, what: CONNECTION, code: 1 };
    let make = || {
        let mut record = connection(peer, why);
        if let Some(client) = client {
            let (common_name, serial_number) = client.names();
            record.user = Some(common_name);
            record.certificate = Some(Certificate { fingerprint: keystead_audit::chain::hex(&client.fingerprint), serial_number });
        }
        record
    };
    manager.audit().count_refusal(None, key, make, |_| rest(CONNECT));
}

/// Counts a handshake that has failed. Connections that only end, as those of monitors do, are none.
pub fn no_handshake(manager: &Manager, peer: SocketAddr, error: &std::io::Error) {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return };
    let why = match error {
        rustls::Error::InvalidCertificate(CertificateError::Revoked) => "the client's certificate is revoked",
        rustls::Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => "the client's certificate has expired",
        rustls::Error::InvalidCertificate(_) => "no CA that counts has signed the client's certificate, or it cannot be used",
        rustls::Error::NoCertificatesPresented => "the client has shown no certificate",
        rustls::Error::AlertReceived(_) => "the client has refused the server",
        _ => "this is no TLS handshake, or none that is accepted here",
    };
    refused(manager, None, peer, why);
}

/// Why a certificate is refused, in words.
pub fn words(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Unknown => "the client's certificate is not in the list of clients",
        Refusal::Revoked => "the client's certificate is revoked",
        Refusal::Expired => "the client's certificate has expired",
        Refusal::NotSigned => "no CA that counts has signed the client's certificate",
        Refusal::TwoSvms => "CAs of two SVMs vouch for the client's certificate",
        Refusal::NoSvm => "the SVM of the client's certificate does not exist",
        Refusal::Unreadable => "the client's certificate cannot be read",
    }
}

fn connection(peer: SocketAddr, why: &str) -> Record {
    let mut record = Record::new(Application::Kmip, State::Error, CONNECT);
    record.location = Some(peer.ip());
    record.port = Some(peer.port());
    record.message = Some(why.to_owned());
    record
}

fn further(actor: &Actor, own: bool, input: &str) -> Record {
    if own { Record { message: rest(input).message, ..actor.record(State::Error, input) } } else { rest(input) }
}

fn rest(input: &str) -> Record {
    let mut record = Record::new(Application::Kmip, State::Error, input);
    record.message = Some("refusals of further kinds: other clients, addresses, objects and reasons".to_owned());
    record
}

fn change(actor: &Actor, version: Version, item: &RequestItem<'_, '_>, response: &Response<'_>, placeholder: Option<Uuid>) -> Record {
    let mut record = actor.record(State::Pending, name(item.operation));
    record.command_id = Some(keystead_audit::new_id());
    record.object = id_of(response);
    let mut field = |name: &str, value: String| record.fields.push(Given { name: name.to_owned(), value: Some(value) });
    match response {
        // The names of a client's own attributes are the client's to choose, and may say anything.
        Response::Attribute { attribute, .. } => match &attribute.identity {
            Identity::Known(_) => field("attribute", attribute.identity.name().to_owned()),
            Identity::Custom(_) => field("attribute", "one of the client's own".to_owned()),
        },
        _ => match item.request(version) {
            Ok(Request::ReKey { id, .. }) => {
                if let Some(old) = id.map_or(placeholder, |id| id.parse().ok()) {
                    field("replaces", old.to_string());
                }
            }
            Ok(Request::Revoke { code, .. }) => field("reason", code.name().to_owned()),
            Ok(Request::Create { object_type, .. } | Request::Register { object_type, .. }) => field("object_type", object_type.name().to_owned()),
            Ok(Request::Import { object_type, replace, .. }) => {
                field("object_type", object_type.name().to_owned());
                // Then there was another one under that identifier, or there may have been.
                field("replace_existing", replace.to_string());
            }
            _ => {}
        },
    }
    record
}

fn name(operation: u32) -> &'static str {
    Operation::from_number(operation).map_or("an operation that KMIP does not have", Operation::name)
}

fn id_of(response: &Response<'_>) -> Option<Uuid> {
    match response {
        Response::Identifier { id, .. }
        | Response::Object { id, .. }
        | Response::Attribute { id, .. }
        | Response::Exported { id, .. }
        | Response::Ciphered { id, .. } => id.parse().ok(),
        _ => None,
    }
}

fn asked_for(request: &Request<'_>) -> Option<Uuid> {
    let id = match request {
        Request::Get { id, .. }
        | Request::Export { id, .. }
        | Request::ReKey { id, .. }
        | Request::Activate { id }
        | Request::Revoke { id, .. }
        | Request::Destroy { id }
        | Request::AddAttribute { id, .. }
        | Request::ModifyAttribute { id, .. }
        | Request::DeleteAttribute { id, .. }
        | Request::SetAttribute { id, .. }
        | Request::AdjustAttribute { id, .. }
        | Request::GetUsageAllocation { id, .. } => *id,
        Request::Encrypt(request) | Request::Decrypt(request) => request.id,
        _ => None,
    };
    id?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every operation that this server has is either recorded, counted, or known to hand out and change nothing.
    #[test]
    fn every_operation_has_its_kind() {
        use Operation as O;
        let nothing =
            [O::Locate, O::Check, O::GetAttributes, O::GetAttributeList, O::ObtainLease, O::Query, O::DiscoverVersions, O::RNGRetrieve, O::Interop, O::Log];
        for operation in crate::operations::OPERATIONS {
            assert_eq!(kind(operation.number()) == Kind::Nothing, nothing.contains(operation), "{}", operation.name());
        }
    }
}
