//! What the REST API brings to the audit log: every call that changes something, before it is done and after; logins and refusals, counted.
//!
//! A secret cannot get into a record: fields are named, and the values of those alone are added that a GET shows, or that are listed here by name; what is declared as a secret is never among them.

use crate::field::{Kind, Show, Value};
use crate::login::{Proof, Refused};
use crate::request::Answer;
use crate::resource::{Declared, Resource};
use crate::values::Values;
use http::{Method, StatusCode, header};
use keystead_audit::{Application, Given, Key, Named, Record, State, actor};
use keystead_manager::model::{Accepted, Principal, Role, SvmRef, SvmSelector};
use keystead_manager::{Error, Manager, Result};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use uuid::Uuid;

/// The number of a login among what is counted; KMIP's operations have small ones.
const LOGIN: u32 = 0x1000;
/// The same of a refused call.
const REFUSED: u32 = 0x1001;
/// The same of a connection that was refused.
const CONNECTION: u32 = 0x1003;
/// What a connection is called in records.
const CONNECT: &str = "connect";
/// Fields that no GET shows and that are no secrets, by the last part of their path: what a rekey-external is about.
const SHOWN: &[&str] = &[
    "key_id",
    "access_key_id",
    "region",
    "host",
    "port",
    "service",
    "default_domain",
    "timeout",
    "verify",
    "verify_host",
    "verify_ip",
    "skip_verify",
    "migrate_keys",
];

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub struct Source {
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// The connection.
    pub session: Uuid,
}

/// A call that changes something.
pub struct Call<'c> {
    /// The key manager.
    pub manager: &'c Manager,
    /// Where it comes from.
    pub source: Source,
    /// Who makes it.
    pub who: &'c Principal,
    /// The method.
    pub method: &'c Method,
    /// The path, without what is after the `?`.
    pub path: &'c str,
    /// The object in the path.
    pub object: Option<Uuid>,
}

/// A call that stands in the log as begun. One that is dropped, since its handler has panicked, has failed.
pub struct Recorded {
    manager: Manager,
    record: Option<Record>,
    trail: Trail,
    begun: Duration,
    /// Whether the record is about the SVM of who calls, whatever the call names.
    of_caller: bool,
}

/// What a handler learns of its call. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct Trail(Arc<Mutex<Seen>>);

#[derive(Debug, Default)]
struct Seen {
    fields: Vec<Given>,
    svm: Option<SvmRef>,
    named: (Option<Uuid>, Option<String>),
    object: Option<Uuid>,
    job: Option<Uuid>,
}

impl Call<'_> {
    /// Records that the call begins: on return that is durable.
    ///
    /// # Errors
    /// 13114500: it cannot be recorded, and so not be made.
    pub async fn begin(self, trail: &Trail) -> Result<Recorded> {
        let Self { manager, source, who, method, path, object } = self;
        let mut record = record_of(State::Pending, format!("{method} {path}"), source, Some(who));
        record.command_id = Some(keystead_audit::new_id());
        record.object = object;
        let own = own_svm(manager, who);
        let of_caller = own.is_some();
        record.svm = own.or_else(|| object.and_then(|object| manager.svm_of(object))).map(named);
        let begun = manager.monotonic();
        let unrecorded = |why| manager.unrecorded(&why);
        manager.audit().begin(vec![record.clone()]).await.map_err(unrecorded)?.synced().await.map_err(unrecorded)?;
        Ok(Recorded { manager: manager.clone(), record: Some(record), trail: trail.clone(), begun, of_caller })
    }
}

impl Recorded {
    /// Records how the call has ended: on return that is durable, where the log can be written.
    pub async fn end(mut self, answer: &Result<Answer>) {
        let Some(record) = self.record.take() else { return };
        let mut record = self.filled(record);
        match answer {
            Ok(answer) => {
                record.state = if answer.status.as_u16() < 400 { State::Success } else { State::Error };
                record.object = record.object.or_else(|| made(answer));
                if answer.status == StatusCode::ACCEPTED {
                    record.message = Some("accepted; the job goes on with it".to_owned());
                }
            }
            Err(error) => {
                record.state = State::Error;
                record.message = Some(error.message.clone());
                record.code = Some(error.code.to_string());
            }
        }
        self.manager.audit().end_durably(vec![record]).await;
    }

    fn filled(&self, record: Record) -> Record {
        let seen = self.trail.seen();
        let (uuid, name) = &seen.named;
        let by_name = || name.as_ref().and_then(|name| self.manager.svms().into_iter().find(|svm| svm.name.eq_ignore_ascii_case(name)));
        let given = uuid.and_then(|uuid| self.manager.svm_of(uuid)).or_else(|| by_name().map(|svm| SvmRef { uuid: svm.uuid, name: svm.name }));
        let about = seen.svm.clone().or(given).filter(|_| !self.of_caller);
        let duration = self.manager.monotonic().saturating_sub(self.begun);
        Record {
            fields: seen.fields.clone(),
            svm: about.map(named).or(record.svm),
            object: seen.object.or(record.object),
            job: seen.job,
            duration_ms: u64::try_from(duration.as_millis()).ok(),
            ..record
        }
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        if let Some(record) = self.record.take() {
            let record = Record { state: State::Error, message: Some("the call ended without an answer".to_owned()), ..self.filled(record) };
            self.manager.audit().note(record);
        }
    }
}

impl Trail {
    /// The fields that were given.
    pub fn given<T>(&self, resource: &'static Resource<T>, values: &Values) {
        let mut seen = self.seen();
        seen.fields = values.values.iter().map(|(path, value)| Given { name: (*path).to_owned(), value: shown(resource, path, value) }).collect();
        for (uuid, name) in [("svm.uuid", "svm.name"), ("owner.uuid", "owner.name")] {
            if let Some(Value::Uuid(uuid)) = values.values.get(uuid) {
                seen.named.0 = Some(*uuid);
            }
            if let Some(Value::Text(name)) = values.values.get(name) {
                seen.named.1 = Some(name.clone());
            }
        }
    }

    /// The SVM that the headers name; what the body names comes first.
    pub fn tunnel(&self, uuid: Option<Uuid>, name: Option<&str>) {
        let mut seen = self.seen();
        if seen.named == (None, None) {
            seen.named = (uuid, name.map(str::to_owned));
        }
    }

    /// The SVM that is named, where its body has named none: its headers do.
    pub fn names(&self, svm: &SvmSelector) {
        let mut seen = self.seen();
        if seen.named == (None, None) {
            seen.named = (svm.uuid, svm.name.clone());
        }
    }

    /// The value of a field that its declaration hides, and that is no secret.
    pub fn show(&self, name: &str, value: &str) {
        if let Some(field) = self.seen().fields.iter_mut().find(|field| field.name == name) {
            field.value = Some(value.to_owned());
        }
    }

    /// The job that goes on with the call, and what it works on.
    pub fn job(&self, manager: &Manager, accepted: Accepted) {
        let svm = manager.svm_of(accepted.job);
        let mut seen = self.seen();
        (seen.job, seen.object, seen.svm) = (Some(accepted.job), Some(accepted.resource), svm);
    }

    // A panic while the lock is held cannot leave it half changed, so a poisoned lock is as good as any.
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a login.
pub fn logged_in(manager: &Manager, source: Source, who: &Principal, proof: Proof) {
    let id = actor(&[who.name.as_bytes(), source.peer.ip().to_string().as_bytes(), method(proof).as_bytes()]);
    let key = Key { actor: id, object: 0, what: LOGIN, code: 0 };
    // A call that only reads goes on in strict mode too: no key is handed out here.
    let _ = manager.audit().count(key, || {
        let mut record = record_of(State::Success, "login".to_owned(), source, Some(who));
        record.fields.push(proven(proof));
        record
    });
}

/// Counts a handshake that has failed. Connections that only end, as those of monitors do, are none.
pub fn no_handshake(manager: &Manager, peer: SocketAddr, error: &std::io::Error) {
    let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else { return };
    let why = match error {
        rustls::Error::InvalidCertificate(_) => "the client's certificate cannot be used",
        rustls::Error::AlertReceived(_) => "the client has refused the server",
        _ => "this is no TLS handshake, or none that is accepted here",
    };
    let key = Key { actor: actor(&[peer.ip().to_string().as_bytes(), why.as_bytes()]), object: 0, what: CONNECTION, code: 1 };
    let make = || {
        let mut record = Record::new(Application::Http, State::Error, CONNECT);
        (record.location, record.port, record.message) = (Some(peer.ip()), Some(peer.port()), Some(why.to_owned()));
        record
    };
    manager.audit().count_refusal(None, key, make, |_| further(CONNECT));
}

/// Counts a refusal, and answers why. Names of accounts that do not exist are left out: there is no end to them, and people type passwords there.
pub fn refused(manager: &Manager, source: Source, (method, path): (&Method, &str), proof: Option<Proof>, refused: Refused) -> Error {
    let Refused { name, who, error } = refused;
    let known = name.filter(|name| manager.has_account(name));
    let user = who.as_ref().map(|who| who.name.clone()).or(known);
    let (what, input) = match &who {
        Some(_) => (REFUSED, format!("{method} {path}")),
        None => (LOGIN, "login".to_owned()),
    };
    let from = source.peer.ip().to_string();
    let shown = proof.map(self::method).unwrap_or_default();
    let id = actor(&[user.as_deref().unwrap_or_default().as_bytes(), from.as_bytes(), input.as_bytes(), shown.as_bytes()]);
    let key = Key { actor: id, object: 0, what, code: error.code.number() };
    let make = |user: Option<String>| {
        let mut record = record_of(State::Error, input.clone(), source, who.as_ref());
        record.user = user;
        record.svm = who.as_ref().and_then(|who| own_svm(manager, who)).map(named);
        record.code = Some(error.code.to_string());
        record.message = Some(error.message.clone());
        record.fields.extend(proof.map(proven));
        record
    };
    let rest = |own: bool| match &who {
        Some(who) if own => {
            let mut record = further("calls");
            (record.user, record.role) = (Some(who.name.clone()), Some(role(who.role).to_owned()));
            record.svm = own_svm(manager, who).map(named);
            record
        }
        _ => further("login"),
    };
    let known = who.as_ref().map(|who| actor(&[b"account", who.name.as_bytes()]));
    manager.audit().count_refusal(known, key, || make(user.clone()), rest);
    error
}

fn further(input: &str) -> Record {
    let mut record = Record::new(Application::Http, State::Error, input);
    record.message = Some("refusals of further kinds: other accounts, addresses, calls and reasons".to_owned());
    record
}

/// How an account has shown who it is, in a word.
fn method(proof: Proof) -> &'static str {
    match proof {
        Proof::Password => "password",
        Proof::Session => "session",
        Proof::Certificate => "certificate",
    }
}

fn proven(proof: Proof) -> Given {
    Given { name: "authentication_method".to_owned(), value: Some(method(proof).to_owned()) }
}

/// The name of a role.
pub fn role(role: Role) -> &'static str {
    match role {
        Role::Admin => "admin",
        Role::Readonly => "readonly",
        Role::Vsadmin { .. } => "vsadmin",
    }
}

fn record_of(state: State, input: String, source: Source, who: Option<&Principal>) -> Record {
    let mut record = Record::new(Application::Http, state, input);
    record.user = who.map(|who| who.name.clone());
    record.role = who.map(|who| role(who.role).to_owned());
    record.location = Some(source.peer.ip());
    record.port = Some(source.peer.port());
    record.session_id = Some(source.session);
    record
}

/// The object that an answer says was made.
fn made(answer: &Answer) -> Option<Uuid> {
    answer.headers.get(header::LOCATION)?.to_str().ok()?.rsplit('/').next()?.parse().ok()
}

/// The SVM that an account administers. What it does is recorded as being about that one alone, also where it names another: else the log would tell it which there are, and those that it is there.
fn own_svm(manager: &Manager, who: &Principal) -> Option<SvmRef> {
    let Role::Vsadmin { svm } = who.role else { return None };
    // One that was deleted at this moment has no name.
    Some(manager.svm_of(svm).unwrap_or_else(|| SvmRef { uuid: svm, name: String::new() }))
}

fn named(svm: SvmRef) -> Named {
    Named { uuid: svm.uuid, name: svm.name }
}

/// The value of a field, where anybody may see it.
fn shown(resource: &dyn Declared, path: &str, value: &Value) -> Option<String> {
    let spec = resource.spec(path)?;
    let listed = path.rsplit('.').next().is_some_and(|last| SHOWN.contains(&last));
    if matches!(spec.kind, Kind::Secret(_)) || (spec.show == Show::Never && !listed) {
        return None;
    }
    match value {
        Value::Text(text) => Some(text.clone()),
        // Which members there are is in the names of the fields.
        Value::Secret(_) | Value::Objects(_) => None,
        Value::Integer(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Uuid(uuid) => Some(uuid.to_string()),
        Value::Duration(duration) => Some(crate::field::duration_text(*duration)),
        Value::Texts(texts) => Some(texts.join(", ")),
        Value::Clear => Some(String::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_kms::AWS_KMS;
    use crate::body::Unknown;
    use serde_json::json;

    #[test]
    fn fields_are_named_and_secrets_have_no_value() {
        let body = json!({
            "svm": { "name": "svm1" }, "region": "us-east-1", "key_id": "k", "access_key_id": "AKIAIOSFODNN7EXAMPLE", "secret_access_key": "hunter2", "proxy_password": "hunter3",
            "proxy_type": "http", "proxy_host": "h", "proxy_port": 1, "verify": false,
        });
        let values = AWS_KMS.read_post(body.as_object().unwrap().clone(), Unknown::Refused).unwrap();
        let trail = Trail::default();
        trail.given(&AWS_KMS, &values);
        let seen = trail.seen();
        let value = |name: &str| seen.fields.iter().find(|field| field.name == name).unwrap().value.clone();
        assert_eq!(
            (value("access_key_id").as_deref(), value("region").as_deref(), value("verify").as_deref()),
            (Some("AKIAIOSFODNN7EXAMPLE"), Some("us-east-1"), Some("false"))
        );
        assert_eq!((value("secret_access_key"), value("proxy_password")), (None, None));
        assert!(!format!("{seen:?}").contains("hunter"));
        assert_eq!(seen.named.1.as_deref(), Some("svm1"));
    }
}
