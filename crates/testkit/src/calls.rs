//! The record of calls: what AWS was asked, by whom, and what it answered.

use std::net::SocketAddr;

use jiff::Timestamp;
use serde::Serialize;

use crate::blob::Context;

/// One call. Plaintexts and blobs are not kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Call {
    /// Counted from 1, in the order of arrival, since the start.
    pub number: u64,
    /// When it arrived, by the machine's clock.
    pub time: Timestamp,
    /// `Encrypt`, `Decrypt`, `DescribeKey`, …; empty without `X-Amz-Target`.
    pub operation: String,
    /// `KeyId` as sent.
    pub key_id: Option<String>,
    /// `EncryptionContext` as sent; `None` when absent.
    pub encryption_context: Option<Context>,
    /// The access key id of the credential scope, proven or not.
    pub access_key_id: Option<String>,
    /// The region of the credential scope.
    pub region: Option<String>,
    /// The service of the credential scope.
    pub service: Option<String>,
    /// Whether the signature was right and the access key active.
    pub authenticated: bool,
    /// The other end of the connection: a proxy's, where one is used.
    pub peer: SocketAddr,
    /// The `Host` header.
    pub host: Option<String>,
    /// The `User-Agent` header.
    pub user_agent: Option<String>,
    /// `x-amzn-RequestId` of the answer.
    pub request_id: String,
    /// The fault that struck, by its name.
    pub fault: Option<String>,
    /// `ok`, the error's code, or the fault's name where no proper answer was given; `None` while it is held or in work, or if the client went away first.
    pub outcome: Option<String>,
}
