//! `/security/authentication/password`: changing a password.

use crate::field::{ANY, Field, Kind, Patch, Post, Show};
use crate::request::{Answer, Request};
use crate::resource::Resource;
use keystead_manager::{Code, Error, Result};
use serde_json::json;

/// The body.
const PASSWORD: Resource = Resource {
    path: "/api/security/authentication/password",
    fields: &[
        Field { path: "name", kind: Kind::Text(1, 64, ANY), post: Post::Required, patch: Patch::No, show: Show::Standard, doc: "The account." },
        Field { path: "password", kind: Kind::Secret(1024), post: Post::Required, patch: Patch::No, show: Show::Never, doc: "The new password." },
        Field { path: "owner.name", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Standard, doc: "Names are unique in the cluster." },
        Field { path: "owner.uuid", kind: Kind::Shown, post: Post::Ignored, patch: Patch::No, show: Show::Standard, doc: "Names are unique in the cluster." },
    ],
};

pub async fn change(request: Request) -> Result<Answer> {
    request.query.check_change(&PASSWORD, &[])?;
    let mut values = PASSWORD.read_post(request.object()?)?;
    let name = values.text("name").unwrap_or_default();
    let password = values.secret("password").ok_or_else(|| Error::new(Code::MissingField).target("password"))?;
    request.manager.set_password(&request.who, &name, password).await?;
    Ok(Answer::ok(json!({})))
}
