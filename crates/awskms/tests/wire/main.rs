//! The client over the wire, against a stand-in of AWS KMS, proxies and names of the tests' own.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

mod kms;
mod pki;
mod proxy;
mod setup;

mod test_answers;
mod test_credentials;
mod test_egress;
mod test_endpoint;
mod test_limits;
mod test_preflight;
mod test_proxy;
mod test_retries;
mod test_secrets;
mod test_surroundings;
mod test_tls;
