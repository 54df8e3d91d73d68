//! Query and Discover Versions (KMIP Specification 1.4, sections 4.25 and 4.26).

use keystead_kmip::Version;
use keystead_kmip::enumeration::{ObjectType, Operation, QueryFunction, RNGAlgorithm};
use keystead_kmip::response::{Query, Response};

/// What is served. Discover Versions came with 1.1.
const OPERATIONS: &[Operation] = &[
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
];
const OBJECTS: &[ObjectType] = &[ObjectType::SymmetricKey, ObjectType::SecretData, ObjectType::OpaqueObject, ObjectType::Template];
const VENDOR: &str = concat!("Keystead ", env!("CARGO_PKG_VERSION"));

pub fn query(version: Version, functions: &[QueryFunction]) -> Response<'static> {
    let asked = |function| functions.contains(&function);
    let mut answer = Query::default();
    if asked(QueryFunction::QueryOperations) {
        answer.operations = OPERATIONS.iter().copied().filter(|operation| *operation != Operation::DiscoverVersions || version >= Version::V1_1).collect();
    }
    if asked(QueryFunction::QueryObjects) {
        answer.objects = OBJECTS.to_vec();
    }
    if asked(QueryFunction::QueryServerInformation) {
        answer.vendor = Some(VENDOR);
    }
    if asked(QueryFunction::QueryRNGs) {
        answer.rngs = vec![RNGAlgorithm::DRBG];
    }
    Response::Query(answer)
}

/// Those of the client's versions that are spoken here too, in the client's order; all, where it names none.
pub fn discover(versions: &[(i32, i32)]) -> Response<'static> {
    if versions.is_empty() {
        return Response::Versions(Version::SUPPORTED.to_vec());
    }
    Response::Versions(versions.iter().filter_map(|(major, minor)| Version::supported(*major, *minor)).collect())
}
