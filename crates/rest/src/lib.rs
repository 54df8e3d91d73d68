//! The HTTP edge: the REST API that storage automation speaks (ONTAP's conventions), over the key manager.
//!
//! A request comes in through [`server`](serve): TLS, limits, login, then the one table of calls, `routes`. Each resource declares its fields once (`field`, `resource`); reading a body,
//! errors, filters and output follow from the declaration. No storage and no AWS here.

mod aws_kms;
mod certificates;
mod cluster;
mod ekmip_clients;
mod ems;
mod error;
pub mod field;
mod jobs;
mod json;
mod key_managers;
mod key_stores;
mod login;
mod password;
mod query;
mod request;
pub mod resource;
pub mod routes;
mod security;
mod select;
mod server;
mod settings;
mod signing_requests;
mod svms;

pub use login::Access;
pub use request::{Answer, Request};
pub use server::{Tls, serve};
