//! `/security/authentication/password`: changing a password.

use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request};
use crate::resource::Resource;
use keystead_manager::{Code, Error, Result};
use serde_json::json;

/// The body.
pub const PASSWORD: Resource<()> = Resource {
    name: "account_password",
    path: "/api/security/authentication/password",
    fields: &[
        Field::hidden("name", Kind::Text(1, 64, ANY), Post::Required, Patch::No, "The account."),
        Field::hidden("password", Kind::Secret(1024), Post::Required, Patch::No, "The new password."),
        Field::shown("owner.name", As::Text, Show::Standard, |()| Cell::Null, "Names are unique in the cluster."),
        Field::shown("owner.uuid", As::Uuid, Show::Standard, |()| Cell::Null, "Names are unique in the cluster."),
    ],
    order: &[],
    links: &[],
};

pub async fn change(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&PASSWORD)?;
    let name = values.text("name").unwrap_or_default();
    request.trail.show("name", &name);
    let password = values.secret("password").ok_or_else(|| Error::new(Code::MissingField).target("password"))?;
    request.manager.set_password(&request.who, &name, password).await?;
    Ok(Answer::ok(json!({})))
}
