//! Query and Discover Versions (KMIP Specification 1.4, sections 4.25 and 4.26); Interop and Log (2.1, sections 6.1.26 and 6.1.29), which tests of conformance ask for.

use super::Context;
use crate::managed::STORAGE;
use keystead_kmip::enumeration::{Enumeration as _, InteropFunction, ObjectType, Operation, QueryFunction, RNGAlgorithm, ResultReason};
use keystead_kmip::response::{Query, Response};
use keystead_kmip::versions::has_member;
use keystead_kmip::{Failure, Result, Tag, Version};

/// What is served, to the versions that have it.
pub const OPERATIONS: &[Operation] = &[
    Operation::Query,
    Operation::DiscoverVersions,
    Operation::Create,
    Operation::Register,
    Operation::ReKey,
    Operation::Locate,
    Operation::Get,
    Operation::GetAttributes,
    Operation::GetAttributeList,
    Operation::AddAttribute,
    Operation::ModifyAttribute,
    Operation::DeleteAttribute,
    Operation::Activate,
    Operation::Revoke,
    Operation::Destroy,
    Operation::Check,
    Operation::ObtainLease,
    Operation::GetUsageAllocation,
    Operation::Encrypt,
    Operation::Decrypt,
    Operation::RNGRetrieve,
    Operation::Import,
    Operation::Export,
    Operation::SetAttribute,
    Operation::AdjustAttribute,
];
/// What is served where `[ekmip] interop` says so.
const INTEROP: &[Operation] = &[Operation::Interop, Operation::Log];
const OBJECTS: &[ObjectType] = &[
    ObjectType::SymmetricKey,
    ObjectType::SecretData,
    ObjectType::OpaqueObject,
    ObjectType::Certificate,
    ObjectType::PublicKey,
    ObjectType::PrivateKey,
    ObjectType::Template,
];
const VENDOR: &str = concat!("Keystead ", env!("CARGO_PKG_VERSION"));

/// The longest text of a client that goes into the log, in characters.
const MOST_LOGGED: usize = 256;

pub fn query(context: &Context<'_>, functions: &[QueryFunction]) -> Response<'static> {
    let version = context.version;
    let asked = |function| functions.contains(&function);
    let mut answer = Query::default();
    if asked(QueryFunction::QueryOperations) {
        let interop = if context.interop { INTEROP } else { &[] };
        answer.operations = OPERATIONS.iter().chain(interop).copied().filter(|operation| operation.exists_in(version)).collect();
    }
    if asked(QueryFunction::QueryObjects) {
        answer.objects = OBJECTS.iter().copied().filter(|kind| has_member(Tag::ObjectType, kind.number(), version)).collect();
    }
    if asked(QueryFunction::QueryServerInformation) {
        answer.vendor = Some(VENDOR);
    }
    if asked(QueryFunction::QueryRNGs) {
        answer.rngs = vec![RNGAlgorithm::DRBG];
    }
    if asked(QueryFunction::QueryStorageProtectionMasks) {
        answer.storage = vec![STORAGE];
    }
    Response::Query(answer)
}

/// A test begins or ends. Nothing is reset here: this server keeps keys.
pub fn interop(context: &Context<'_>, function: InteropFunction, identifier: &str) -> Result<Response<'static>> {
    served(context, Operation::Interop)?;
    if function == InteropFunction::Reset {
        return Err(Failure::new(ResultReason::FeatureNotSupported, "this server is not reset by a client"));
    }
    tracing::info!(function = function.name(), test = shortened(identifier), "an interoperability test");
    Ok(Response::Nothing)
}

/// A client says something for the log.
pub fn log(context: &Context<'_>, message: &str) -> Result<Response<'static>> {
    served(context, Operation::Log)?;
    tracing::info!(text = shortened(message), "a KMIP client has logged a message");
    Ok(Response::Nothing)
}

fn served(context: &Context<'_>, operation: Operation) -> Result<()> {
    if context.interop {
        return Ok(());
    }
    Err(Failure::new(ResultReason::OperationNotSupported, format!("{} is served for tests only: [ekmip] interop", operation.name())))
}

/// What a client says, without what would break a line of the log.
fn shortened(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(MOST_LOGGED).collect()
}

/// Those of the client's versions that are spoken here too, in the client's order; all, where it names none.
pub fn discover(versions: &[(i32, i32)]) -> Response<'static> {
    if versions.is_empty() {
        return Response::Versions(Version::SUPPORTED.to_vec());
    }
    Response::Versions(versions.iter().filter_map(|(major, minor)| Version::supported(*major, *minor)).collect())
}
