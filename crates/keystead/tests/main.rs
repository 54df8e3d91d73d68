//! The tests of whole nodes: through their sockets, as callers, KMIP clients and AWS meet them. One program, so that what they share is compiled and linked once; one that measures its own memory
//! (`bulk_memory.rs`) is a program by itself.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

mod accounts;
mod audit;
mod audit_program;
mod aws_calls;
mod bulk;
mod certificate_owners;
mod certificates;
mod cluster;
mod cluster_outages;
mod collections;
mod conditions;
mod crash;
mod crash_keys;
mod crash_migrate;
mod crash_onboard;
mod credentials;
mod docs;
mod endpoints;
mod error_classes;
mod events;
mod fips;
mod hostile;
mod hostile_kmip;
mod import;
mod import_sources;
mod jobs_at_once;
mod kmip;
mod kmip_2;
mod kmip_identity;
mod kmip_matrix;
mod kmip_operations;
mod kmip_rules;
mod kmip_transcripts;
mod kmip_versions;
mod limits;
mod logins;
mod migrate;
mod migrate_load;
mod migrate_revoked;
mod onboard;
mod polling;
mod preflight;
mod reroot;
mod revocation;
mod roles;
mod rotation;
mod secrets;
mod server_certificates;
mod startup;
mod stopping;
mod terraform;
mod unserved;
