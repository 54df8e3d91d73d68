//! The HTTP edge: the REST API that storage automation speaks (ONTAP's conventions), over the key manager.
//!
//! A request comes in through [`server`](serve): TLS, limits, login, then the one table of calls, `routes`. Each resource declares its fields once (`field`, `resource`); reading a body,
//! errors, filters and output follow from the declaration. No storage and no AWS here.

mod accept;
mod accounts;
mod audit;
mod audit_messages;
mod aws_kms;
mod body;
mod bulk;
mod certificates;
mod client_certificates;
mod cluster;
mod cluster_ca;
pub mod collection;
mod connections;
mod console;
mod ekmip_clients;
mod ems;
mod error;
pub mod field;
mod jobs;
mod json;
mod key_managers;
mod key_stores;
mod login;
mod long;
mod metrics;
mod nodes;
mod openapi;
mod password;
mod patience;
mod perform;
mod query;
mod request;
pub mod resource;
mod roles;
pub mod routes;
pub mod scrape;
mod security;
mod server;
mod sessions;
mod settings;
mod signing_requests;
mod svms;
mod values;

pub use client_certificates::Vouchers;
pub use error::status;
pub use login::{Access, Locked, Permit, Proof};
pub use nodes::NodeClient;
pub use request::{Answer, Head, Request};
pub use server::{Limits, Tls, serve};
