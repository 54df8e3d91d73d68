//! `/security/accounts`: who may log in, how, and as what (ONTAP's resource).

use crate::collection::cell::Cell;
use crate::field::{ANY, As, Field, Kind, Patch, Post, Show, Spec};
use crate::request::{Answer, Request, svm_path};
use crate::resource::{Link, Resource};
use crate::roles::role_path;
use crate::values::Values;
use http::{StatusCode, header};
use keystead_manager::model::{Account, AccountChange, LoginMethod, NewAccount, RoleName};
use keystead_manager::{Code, Error, Result};
use serde_json::{Value as Json, json};
use uuid::Uuid;

const PATH: &str = "/api/security/accounts";
/// The one application that there is: this API.
const HTTP: &str = "http";
const ROLES: &[&str] = &["admin", "readonly", "vsadmin"];

/// An entry of `applications`.
pub const APPLICATION: Resource<()> = Resource {
    name: "account_application",
    path: PATH,
    fields: &[
        Field::hidden("application", Kind::Word(&[HTTP]), Post::Required, Patch::No, "http: ONTAP's others have nothing here to log in to."),
        Field::hidden("authentication_methods", Kind::Texts, Post::Required, Patch::No, "password, certificate, or both."),
        Field::hidden("second_authentication_method", Kind::Word(&["none"]), Post::Optional, Patch::No, "ONTAP has one for ssh alone."),
        Field::shown("is_ldap_fastbind", As::Bool, Show::Never, |()| Cell::Null, "There is no LDAP."),
        Field::shown("is_ns_switch_group", As::Bool, Show::Never, |()| Cell::Null, "There is no name service."),
    ],
    order: &[],
    links: &[],
};

const SHOWN: &[(&str, As)] =
    &[("application", As::Word(&[HTTP])), ("authentication_methods", As::Texts), ("second_authentication_method", As::Word(&["none"]))];

/// The `account` object.
pub const ACCOUNT: Resource<Account> = Resource {
    name: "account",
    path: PATH,
    fields: &[
        Field::given(spec("owner.uuid", Kind::Uuid, Post::Optional, Patch::No, Show::Key, "The SVM; the admin SVM for an account of the cluster."), |a| {
            Cell::Uuid(a.owner.uuid)
        }),
        Field::given(spec("owner.name", Kind::Text(1, 256, ANY), Post::Optional, Patch::No, Show::Key, "Its name."), |a| Cell::text(&a.owner.name)),
        Field::given(
            spec("name", Kind::Text(1, 64, ANY), Post::Required, Patch::No, Show::Key, "The name, unique in the cluster without regard to case."),
            |a| Cell::text(&a.name),
        ),
        Field::shown("scope", As::Word(&["cluster", "svm"]), Show::Standard, |a| Cell::text(scope(a)), "cluster or svm."),
        Field::given(
            spec(
                "role.name",
                Kind::Word(ROLES),
                Post::Optional,
                Patch::Yes,
                Show::Standard,
                "admin (the default of the cluster), readonly, or vsadmin (an SVM's).",
            ),
            |a| Cell::text(a.role.name().text()),
        ),
        Field::given(
            spec(
                "applications",
                Kind::Objects(&APPLICATION, SHOWN),
                Post::Optional,
                Patch::Yes,
                Show::Standard,
                "How it may log in; by default with its password.",
            ),
            applications,
        ),
        Field::hidden("password", Kind::Secret(1024), Post::Optional, Patch::Yes, "8 to 128 characters; needed with the method password."),
        Field::given(spec("comment", Kind::Text(0, 254, ANY), Post::Optional, Patch::Clearable, Show::Standard, "A free text."), |a| Cell::text(&a.comment)),
        Field::given(spec("locked", Kind::Bool, Post::Optional, Patch::Yes, Show::Standard, "Whether it may not log in at all."), |a| Cell::Bool(a.locked)),
    ],
    order: &[("owner.uuid", false), ("name", false)],
    links: &[
        Link { at: "", href: |a| Some(account_path(a.owner.uuid, &a.name)) },
        Link { at: "owner", href: |a| Some(svm_path(a.owner.uuid)) },
        Link { at: "role", href: |a| Some(role_path(a.owner.uuid, a.role.name())) },
    ],
};

const fn spec(path: &'static str, kind: Kind, post: Post, patch: Patch, show: Show, doc: &'static str) -> Spec {
    Spec { path, kind, post, patch, show, doc }
}

pub async fn list(request: Request) -> Result<Answer> {
    request.list(&ACCOUNT, visible(&request))
}

pub async fn show(request: Request) -> Result<Answer> {
    request.one(&ACCOUNT, &named(&request)?)
}

pub async fn create(request: Request) -> Result<Answer> {
    let mut values = request.read_post(&ACCOUNT)?;
    let ignored = std::mem::take(&mut values.ignored);
    let owner = request.selector(values.uuid("owner.uuid"), values.text("owner.name"), "owner")?;
    let new = NewAccount {
        name: values.text("name").unwrap_or_default(),
        password: values.secret("password"),
        role: role(&mut values),
        owner,
        methods: methods(&mut values)?,
        comment: values.text("comment").unwrap_or_default(),
        locked: values.flag("locked").unwrap_or(false),
    };
    let account = request.manager.create_account(&request.who, new).await?;
    let href = account_path(account.owner.uuid, &account.name);
    let body = match request.query.flag("return_records", false)? {
        true => json!({ "num_records": 1, "records": [crate::collection::One::whole(&ACCOUNT).record(&account)] }),
        false => json!({}),
    };
    Ok(Answer::new(StatusCode::CREATED, body).header(header::LOCATION, &href).warn_of(&ignored))
}

pub async fn modify(request: Request) -> Result<Answer> {
    let account = of_path(&request)?;
    let mut values = request.given(&ACCOUNT, ACCOUNT.read_patch(request.object()?, request.query.unknown())?);
    if values.is_empty() {
        return Err(Error::new(Code::NoInput));
    }
    let change = AccountChange {
        password: values.secret("password"),
        role: role(&mut values),
        methods: methods(&mut values)?,
        comment: values.clearable("comment", Values::text).map(Option::unwrap_or_default),
        locked: values.flag("locked"),
    };
    request.manager.modify_account(&request.who, &account.name, change).await?;
    Ok(Answer::ok(json!({})))
}

pub async fn delete(request: Request) -> Result<Answer> {
    request.no_body(&ACCOUNT)?;
    let account = named(&request)?;
    request.manager.delete_account(&request.who, &account.name).await?;
    Ok(Answer::ok(json!({})))
}

/// The account of a PATCH. Ansible names it in the URL's query as well, and so it must be that one.
fn of_path(request: &Request) -> Result<Account> {
    request.query.check_change(&ACCOUNT, &["name", "owner.uuid"])?;
    let account = named(request)?;
    let owner = account.owner.uuid.to_string();
    for (parameter, value) in [("name", account.name.as_str()), ("owner.uuid", owner.as_str())] {
        if request.query.get(parameter).is_some_and(|given| given != value) {
            return Err(Error::new(Code::NotFound).target(parameter));
        }
    }
    Ok(account)
}

fn named(request: &Request) -> Result<Account> {
    let missing = || Error::new(Code::NotFound).target("name");
    let [owner, name] = request.segments.as_slice() else { return Err(missing()) };
    let owner: Uuid = owner.parse().map_err(|_| missing())?;
    visible(request).find(|account| account.owner.uuid == owner && account.name == *name).ok_or_else(missing)
}

/// An SVM's administrator sees the accounts of that SVM.
fn visible(request: &Request) -> impl Iterator<Item = Account> {
    request.manager.accounts().into_iter().filter(|account| request.sees(account.owner.uuid))
}

fn role(values: &mut Values) -> Option<RoleName> {
    values.text("role.name").and_then(|name| RoleName::of(&name))
}

fn methods(values: &mut Values) -> Result<Option<Vec<LoginMethod>>> {
    let Some(entries) = values.objects("applications") else { return Ok(None) };
    let mut methods = Vec::new();
    for mut entry in entries {
        for name in entry.texts("authentication_methods").unwrap_or_default() {
            methods.push(match name.as_str() {
                "password" => LoginMethod::Password,
                "certificate" => LoginMethod::Certificate,
                _ => {
                    return Err(Error::with(Code::InvalidValue, "each must be one of: password, certificate").target("applications.authentication_methods"));
                }
            });
        }
    }
    Ok(Some(methods))
}

fn applications(account: &Account) -> Cell<'_> {
    let methods = account.methods.iter().map(|method| match method {
        LoginMethod::Password => "password",
        LoginMethod::Certificate => "certificate",
    });
    let methods: Vec<Json> = methods.map(Json::from).collect();
    Cell::Json(json!([{ "application": HTTP, "authentication_methods": methods, "second_authentication_method": "none" }]))
}

fn scope(account: &Account) -> &'static str {
    if account.role.name() == RoleName::Vsadmin { "svm" } else { "cluster" }
}

fn account_path(owner: Uuid, name: &str) -> String {
    format!("{PATH}/{owner}/{}", percent_encoding::utf8_percent_encode(name, percent_encoding::NON_ALPHANUMERIC))
}
