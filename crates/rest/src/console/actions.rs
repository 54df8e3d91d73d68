//! What is done with an SVM's configuration, each on a page of its own that says what will happen: new KEK, new customer key, restore, disable; and deleting the SVM.

use super::form::{Field, How, Shown};
use super::parts::{AWS_KMS, configuration_uuid, crumbs, svm as svm_of};
use super::visit::{Visit, at, number, text};
use super::{ROOT, see_other};
use crate::aws_kms::REKEY_EXTERNAL;
use crate::request::Answer;
use http::Method;
use keystead_manager::{Code, Error, Result};
use maud::{Markup, html};
use serde_json::{Value as Json, json};

/// How long a page waits for its job: what fails at once stands on the page then.
const WAIT: &str = "2";

/// An action that is asked about first.
struct Action {
    /// The last part of its address.
    name: &'static str,
    /// What it is called.
    title: &'static str,
    /// What stands on its page, before the name of the SVM.
    heading: &'static str,
    /// What stands on its button.
    button: &'static str,
    /// Whether it takes something away.
    is_danger: bool,
    /// What will happen.
    tells: fn(&Json) -> Markup,
}

const REKEY_INTERNAL: Action = Action {
    name: "rekey-internal",
    title: "New KEK",
    heading: "New KEK for",
    button: "Make a new KEK",
    is_danger: false,
    tells: |svm| {
        html! {
            ul {
                li { "A new version of the KEK of " strong { (text(svm, "name")) } " is made, and wrapped by the customer key in AWS." }
                li { "Every key of it (" strong { (keys(svm)) } ") is wrapped again under it. Keys are served all the time; how far it is, is shown." }
                li { "The older version is then deleted. Copies of the store that are older can no more be opened with what is kept here." }
            }
        }
    },
};

const RESTORE: Action = Action {
    name: "restore",
    title: "Restore",
    heading: "Restore",
    button: "Load the KEKs",
    is_danger: false,
    tells: |svm| {
        html! {
            ul {
                li { "Every node that lacks a KEK of " strong { (text(svm, "name")) } " asks AWS to unwrap it." }
                li { "Nodes do so by themselves with each poll. This is for those who do not want to wait for the next one." }
                li { "Where AWS denies the key, it changes nothing." }
            }
        }
    },
};

const DISABLE: Action = Action {
    name: "disable",
    title: "Disable AWS KMS",
    heading: "Disable AWS KMS for",
    button: "Disable AWS KMS",
    is_danger: true,
    tells: |svm| {
        html! {
            ul {
                li { "The configuration, its credentials and the wrapped KEK of " strong { (text(svm, "name")) } " are deleted. " strong { "It cannot be undone." } }
                li { "The tenant has no key manager then: its storage makes and reads no keys here until another one is enabled." }
                li { "The customer key in AWS stays as it is." }
                @if count(svm) > 0 {
                    li { "Stored under it: " strong { (keys(svm)) } ". Data that they protect could not be read again, so it is refused until they are destroyed over KMIP, or moved to the onboard key manager." }
                } @else {
                    li { "No key is stored under it now." }
                }
            }
        }
    },
};

const DELETE: Action = Action {
    name: "delete",
    title: "Delete the SVM",
    heading: "Delete the SVM",
    button: "Delete the SVM",
    is_danger: true,
    tells: |svm| {
        html! {
            ul {
                li { "The SVM " strong { (text(svm, "name")) } " is deleted with its accounts and client certificates. " strong { "It cannot be undone." } }
                li { "An SVM that has a key manager, or keys, is not deleted." }
            }
        }
    },
};

/// Asks about a new KEK.
pub async fn ask_rekey_internal(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, &REKEY_INTERNAL, None).await
}

/// Makes a new KEK.
pub async fn rekey_internal(visit: Visit<'_>) -> Result<Answer> {
    act(&visit, &REKEY_INTERNAL, Method::POST, "/rekey-internal").await
}

/// Asks about a restore.
pub async fn ask_restore(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, &RESTORE, None).await
}

/// Restores.
pub async fn restore(visit: Visit<'_>) -> Result<Answer> {
    act(&visit, &RESTORE, Method::POST, "/restore").await
}

/// Asks whether to disable.
pub async fn ask_disable(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, &DISABLE, None).await
}

/// Disables.
pub async fn disable(visit: Visit<'_>) -> Result<Answer> {
    act(&visit, &DISABLE, Method::DELETE, "").await
}

/// Asks whether to delete the SVM.
pub async fn ask_delete(visit: Visit<'_>) -> Result<Answer> {
    ask(&visit, &DELETE, None).await
}

/// Deletes the SVM.
pub async fn delete(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    match visit.send(Method::DELETE, &format!("/api/svm/svms/{}", text(&svm, "uuid")), &[("return_timeout", "15")], &json!({})).await {
        Ok(_) => Ok(see_other(ROOT)),
        Err(error) => ask(&visit, &DELETE, Some(&error)).await,
    }
}

/// Asks for a new customer key.
pub async fn ask_rekey_external(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    Ok(visit.page("New customer key", &rekey_form(&visit, &svm, None)))
}

/// Has the KEK wrapped by another customer key.
pub async fn rekey_external(visit: Visit<'_>) -> Result<Answer> {
    let svm = svm_of(&visit, "name").await?;
    let config = configuration_uuid(&visit, text(&svm, "uuid")).await?;
    let body = visit.form.body(&REKEY_EXTERNAL, NEW);
    match visit.send(Method::POST, &format!("{AWS_KMS}/{config}/rekey-external"), &[("return_timeout", "8")], &body).await {
        Ok(_) => Ok(see_other(&format!("{ROOT}svms/{}", text(&svm, "uuid")))),
        Err(error) => Ok(visit.page_again(&error, "New customer key", &rekey_form(&visit, &svm, Some(&error)))),
    }
}

const NEW: &[&str] = &[
    "key_id",
    "keystead.new.region",
    "keystead.new.access_key_id",
    "keystead.new.secret_access_key",
    "keystead.new.encryption_context",
    "keystead.new.host",
    "keystead.new.port",
];

fn rekey_form(visit: &Visit<'_>, svm: &Json, error: Option<&Error>) -> Markup {
    let fields = Shown::new(&visit.form, error, NEW);
    let (uuid, name) = (text(svm, "uuid"), text(svm, "name"));
    let access = ["keystead.new.access_key_id", "keystead.new.secret_access_key"];
    html! {
        (crumbs(svm, "New customer key"))
        h1 { "New customer key for " (name) }
        ul {
            li { "The KEK is unwrapped by the key in use, and wrapped by the new one: both must be usable now." }
            li { "No key of " strong { (name) } " changes, and all are served meanwhile." }
            li { "From then on, the new key is the one that the tenant can revoke. The old one is not needed any more." }
        }
        (fields.trouble("The customer key is the one that it was."))
        form.stack method="post" action={ "/console/svms/" (uuid) "/rekey-external" } {
            (visit.token())
            (fields.field(&Field::new("key_id", "New customer key", How::Code).required().hint("Its id, ARN, alias/… or alias ARN. The one in use, where AWS has rotated it.")))
            details open[fields.uses(NEW.get(1..).unwrap_or_default())] {
                summary { "Another account, region or endpoint" }
                p.hint { "What is left empty stays as it is." }
                (fields.field(&Field::new("keystead.new.region", "Region", How::Code)))
                (fields.field(&Field::new(access[0], "Access key id", How::Code)))
                (fields.field(&Field::new(access[1], "Secret access key", How::Secret("off"))))
                (fields.field(&Field::new("keystead.new.encryption_context", "Encryption context", How::Code)))
                (fields.field(&Field::new("keystead.new.host", "Host", How::Code)))
                (fields.field(&Field::new("keystead.new.port", "Port", How::Number(1, 65_535))))
            }
            div.buttons { button.primary type="submit" { "Wrap the KEK by the new key" } a href={ (ROOT) "svms/" (uuid) } { "Cancel" } }
        }
    }
}

/// Calls the action of a configuration.
async fn act(visit: &Visit<'_>, action: &Action, method: Method, at: &str) -> Result<Answer> {
    let svm = svm_of(visit, "name").await?;
    let config = configuration_uuid(visit, text(&svm, "uuid")).await?;
    match visit.send(method, &format!("{AWS_KMS}/{config}{at}"), &[("return_timeout", WAIT)], &json!({})).await {
        Ok(_) => Ok(see_other(&format!("{ROOT}svms/{}", text(&svm, "uuid")))),
        Err(error) if error.code == Code::NotLoggedIn => Err(error),
        Err(error) => ask(visit, action, Some(&error)).await,
    }
}

async fn ask(visit: &Visit<'_>, action: &Action, error: Option<&Error>) -> Result<Answer> {
    let svm = svm_of(visit, "name,keystead.state,keystead.keys").await?;
    let uuid = text(&svm, "uuid");
    let content = html! {
        (crumbs(&svm, action.title))
        h1 { (action.heading) " " (text(&svm, "name")) @if action.is_danger { "?" } }
        (Shown::new(&visit.form, error, &[]).trouble("That was not done."))
        ((action.tells)(&svm))
        form.buttons method="post" action={ (ROOT) "svms/" (uuid) "/" (action.name) } {
            (visit.token())
            button.primary[!action.is_danger].danger[action.is_danger] type="submit" { (action.button) }
            a href={ (ROOT) "svms/" (uuid) } { "Cancel" }
        }
    };
    Ok(match error {
        Some(error) => visit.page_again(error, action.title, &content),
        None => visit.page(action.title, &content),
    })
}

fn count(svm: &Json) -> i64 {
    at(svm, "keystead.keys").and_then(|keys| number(keys, "count")).unwrap_or_default()
}

fn keys(svm: &Json) -> String {
    match count(svm) {
        1 => "1 key".to_owned(),
        count => format!("{count} keys"),
    }
}
