//! The connection to a node: where it is, whether it is the right one, who asks, and the calls.

use crate::failure::{EXIT_CODES, Failure};
use crate::profile::{self, Profile};
use crate::secret::Asked;
use crate::session::{self, Session};
use crate::table;
use clap::{Args, ValueEnum};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, header};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. The longest is a check, which asks AWS with all its retries.
const ANSWER: Duration = Duration::from_secs(300);
/// What stands in a URL as it is (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How the outcome is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Table,
    /// The API's own answer.
    Json,
}

/// The options that all commands have.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Connection", after_help = EXIT_CODES)]
pub struct Common {
    /// A node's REST API: host:port.
    #[arg(long, value_name = "ADDR", env = "KEYSTEAD_ENDPOINT")]
    pub endpoint: Option<String>,
    /// PEM file of the cluster's CA (ca.pem in a node's data folder). Without it, the CAs of the machine.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CA")]
    pub ca: Option<PathBuf>,
    /// The account; admin by default.
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_USER")]
    pub user: Option<String>,
    /// A file whose first line is the account's password; - is standard input. Without it: the session of `keystead login`, else the terminal is asked.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_PASSWORD_FILE")]
    pub password_file: Option<PathBuf>,
    /// PEM file of a client certificate to log in with, in place of a password.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CLIENT_CERTIFICATE")]
    pub client_certificate: Option<PathBuf>,
    /// PEM file of its private key.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_CLIENT_KEY")]
    pub client_key: Option<PathBuf>,
    /// The profile of the profile file: [profile.NAME].
    #[arg(long, value_name = "NAME", env = "KEYSTEAD_PROFILE")]
    pub profile: Option<String>,
    /// The profile file; ~/.config/keystead/config.toml by default.
    #[arg(long, value_name = "FILE", env = "KEYSTEAD_PROFILE_FILE")]
    pub profile_file: Option<PathBuf>,
    /// How to write the outcome: a table for people, or the API's JSON for programs.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Output,
}

/// Who asks.
#[derive(Debug)]
pub(crate) enum Login {
    Password(SecretString),
    Session(Session),
    Certificate,
    /// Nobody yet: a session is to begin.
    None,
}

/// What a command has: a node to ask, and a way to say what came of it.
pub struct Context {
    client: reqwest::Client,
    /// `https://host:port`.
    endpoint: String,
    user: String,
    login: Login,
    output: Output,
}

/// An answer that is no error.
#[derive(Debug)]
pub struct Answer {
    /// The body.
    pub body: Value,
    /// The headers.
    pub headers: header::HeaderMap,
}

impl Context {
    /// Finds out where the node is and who asks; a password may be asked for at the terminal. No node is asked yet.
    ///
    /// # Errors
    /// 2 the profile, an option or a file is wrong; 3 there is no login.
    pub fn open(common: &Common) -> Result<Self, Failure> {
        let (mut context, found) = Self::unknown(common)?;
        context.login = if found.client_certificate.is_some() {
            Login::Certificate
        } else if let Some(password) = found.password.filter(|_| common.password_file.is_none()) {
            Login::Password(password)
        } else if let Some(file) = &found.password_file {
            Login::Password(password(&context.endpoint, &context.user, Some(file))?)
        } else if let Some(session) = session::stored(&context.endpoint, &context.user) {
            Login::Session(session)
        } else {
            Login::Password(password(&context.endpoint, &context.user, None)?)
        };
        Ok(context)
    }

    /// The same to begin a session with, by a password that was given or is asked for.
    pub(crate) fn to_begin(common: &Common) -> Result<Self, Failure> {
        let (mut context, found) = Self::unknown(common)?;
        context.login = match found.password.filter(|_| common.password_file.is_none()) {
            Some(password) => Login::Password(password),
            None => Login::Password(password(&context.endpoint, &context.user, found.password_file.as_deref())?),
        };
        Ok(context)
    }

    /// The same with the session that was begun, if there is one.
    pub(crate) fn in_session(common: &Common) -> Result<Option<Self>, Failure> {
        let (mut context, _) = Self::unknown(common)?;
        Ok(session::stored(&context.endpoint, &context.user).map(|session| {
            context.login = Login::Session(session);
            context
        }))
    }

    fn unknown(common: &Common) -> Result<(Self, Profile), Failure> {
        let profile = profile::read(common.profile_file.as_deref(), common.profile.as_deref())?;
        let given = common.clone();
        let found = Profile {
            endpoint: given.endpoint.or(profile.endpoint),
            ca: given.ca.or(profile.ca),
            user: given.user.or(profile.user),
            password_file: given.password_file.or(profile.password_file),
            password: profile.password,
            client_certificate: given.client_certificate.or(profile.client_certificate),
            client_key: given.client_key.or(profile.client_key),
        };
        let endpoint =
            endpoint(found.endpoint.as_deref().ok_or_else(|| {
                Failure::command_line("no node is named").next("--endpoint HOST:PORT, or KEYSTEAD_ENDPOINT, or endpoint in the profile file")
            })?)?;
        let client = client(found.ca.as_deref(), found.client_certificate.as_deref(), found.client_key.as_deref())?;
        let user = found.user.clone().unwrap_or_else(|| "admin".to_owned());
        Ok((Self { client, endpoint, user, login: Login::None, output: common.output }, found))
    }

    /// Where the node is: `https://host:port`.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The account.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Whether programs read the outcome.
    pub fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Says what came of it: in words, or the API's JSON.
    pub fn say(&self, json: &Value, words: impl FnOnce() -> String) {
        let text = if self.is_json() { format!("{json:#}\n") } else { words() };
        table::print(&text);
    }

    pub(crate) fn session(&self) -> Option<&Session> {
        match &self.login {
            Login::Session(session) => Some(session),
            _ => None,
        }
    }

    /// A GET. The path stands under `/api`.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached.
    pub async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        Ok(self.call(Method::GET, path, query, None).await?.body)
    }

    /// A collection, all of its pages as one.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let mut page = self.get(path, query).await?;
        let links = page.get("_links").cloned().unwrap_or_default();
        let mut all = records(&mut page);
        while let Some(next) = page.pointer("/_links/next/href").and_then(Value::as_str).map(str::to_owned) {
            page = self.send(Method::GET, &next, None).await?.body;
            all.append(&mut records(&mut page));
        }
        let own = links.get("self").cloned().unwrap_or_default();
        Ok(json!({ "num_records": all.len(), "records": all, "_links": { "self": own } }))
    }

    /// Any call.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached.
    pub async fn call(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<Value>) -> Result<Answer, Failure> {
        self.send(method, &path_and_query(path, query), body).await
    }

    async fn send(&self, method: Method, path: &str, body: Option<Value>) -> Result<Answer, Failure> {
        let changes = !method.is_safe();
        // Links are there for those who do not ask for JSON alone.
        let mut request = self.client.request(method, format!("{}{path}", self.endpoint)).header(header::ACCEPT, "application/hal+json");
        match &self.login {
            Login::Password(password) => request = request.basic_auth(&self.user, Some(password.expose_secret())),
            Login::Session(session) => {
                request = request.header(header::COOKIE, hidden(&session.cookie)?);
                if changes {
                    request = request.header("x-csrf-token", hidden(&session.csrf_token)?);
                }
            }
            Login::Certificate | Login::None => {}
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let response = request.send().await.map_err(|error| self.unreachable(&error))?;
        self.read(response).await
    }

    async fn read(&self, response: Response) -> Result<Answer, Failure> {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = response.bytes().await.map_err(|error| self.unreachable(&error))?;
        for warning in headers.get_all(header::WARNING).iter().filter_map(|warning| warning.to_str().ok()) {
            eprintln!("keystead: the node says: {}", table::plain(warning));
        }
        let Ok(body) = serde_json::from_slice::<Value>(&text) else {
            return Err(Failure::unreachable(format!("what answers at {} is no Keystead: status {status}, and no JSON", self.endpoint))
                .next("look at --endpoint: it is the address of a node's REST API"));
        };
        if status.is_success() {
            return Ok(Answer { body, headers });
        }
        let failure = Failure::of_api(body.get("error").unwrap_or(&Value::Null));
        if status != reqwest::StatusCode::UNAUTHORIZED {
            return Err(failure);
        }
        Err(match &self.login {
            Login::Session(session) => {
                session.forget();
                Failure { message: format!("the session of {} at {} has ended", self.user, self.endpoint), ..failure }.next("log in again: keystead login")
            }
            Login::Certificate => Failure { message: format!("{} does not take the client certificate for a login", self.endpoint), ..failure }
                .next("look at --client-certificate: who has signed it, and until when it is valid"),
            Login::Password(_) | Login::None => Failure { message: format!("{} refuses the login of {}", self.endpoint, self.user), ..failure }
                .next("look at --user and the password: it may have been changed, and the account locked or deleted"),
        })
    }

    /// No answer came.
    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let endpoint = &self.endpoint;
        if let Some(tls) = tls_error(error) {
            return match tls {
                rustls::Error::AlertReceived(alert) => Failure::login(format!("{endpoint} ends the TLS connection: {alert:?}"))
                    .next("look at --client-certificate and --client-key; in FIPS mode, a node takes TLS 1.3 or 1.2 with AES-GCM alone"),
                rustls::Error::InvalidCertificate(rustls::CertificateError::Expired | rustls::CertificateError::ExpiredContext { .. }) => {
                    Failure::unreachable(format!("the certificate of {endpoint} has expired")).next("look at the clocks of the node and of this machine")
                }
                rustls::Error::InvalidCertificate(rustls::CertificateError::NotValidForName | rustls::CertificateError::NotValidForNameContext { .. }) => {
                    Failure::unreachable(format!("the certificate of {endpoint} is for another name"))
                        .next("use a name or an address of the node that stands in it ([cluster] address)")
                }
                rustls::Error::InvalidCertificate(why) => {
                    Failure::unreachable(format!("the certificate of {endpoint} is not of a CA that is believed here ({why})"))
                        .next("give the cluster's CA: --ca, ca.pem in a node's data folder")
                }
                other => Failure::unreachable(format!("no TLS connection with {endpoint}: {other}"))
                    .next("look at --endpoint: it is the address of a node's REST API"),
            };
        }
        let mut last: &dyn StdError = error;
        while let Some(source) = last.source() {
            last = source;
        }
        let why = if error.is_timeout() { "no answer in time".to_owned() } else { last.to_string() };
        Failure::unreachable(format!("{endpoint} cannot be reached: {why}"))
            .next("look at --endpoint, and whether the node runs; any other node of the cluster answers as well")
    }
}

/// Takes the records out of a page.
fn records(page: &mut Value) -> Vec<Value> {
    match page.get_mut("records").map(Value::take) {
        Some(Value::Array(records)) => records,
        _ => Vec::new(),
    }
}

/// A path under `/api` with its query.
fn path_and_query(path: &str, query: &[(&str, &str)]) -> String {
    let pairs: Vec<String> =
        query.iter().map(|(name, value)| format!("{}={}", utf8_percent_encode(name, ENCODED), utf8_percent_encode(value, ENCODED))).collect();
    let mark = if pairs.is_empty() { "" } else { "?" };
    format!("/api{path}{mark}{}", pairs.join("&"))
}

/// A part of a path.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, ENCODED).to_string()
}

/// A value of a query that stands for itself, whatever characters it has.
pub fn exactly(value: &str) -> String {
    format!("\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
}

/// `https://host:port`, of what people write.
fn endpoint(text: &str) -> Result<String, Failure> {
    let wrong = |why: &str| Failure::command_line(format!("the endpoint {text:?} {why}")).next("it is HOST:PORT, or https://HOST:PORT");
    let bare = text.strip_prefix("https://").unwrap_or(text).trim_end_matches('/');
    if bare.starts_with("http://") {
        return Err(wrong("is not one of TLS: a node speaks nothing else"));
    }
    if bare.is_empty() || bare.contains(|c: char| c == '/' || c == '@' || c == '?' || c == '#' || c.is_whitespace()) {
        return Err(wrong("is no address"));
    }
    Ok(format!("https://{bare}"))
}

fn password(endpoint: &str, user: &str, file: Option<&Path>) -> Result<SecretString, Failure> {
    let asked = Asked { what: "the password", option: "--password-file", prompt: &format!("Password of {user} at {endpoint}: ") };
    asked.take(file).map_err(|failure| match file {
        // Nothing is wrong with the command but that nobody is logged in.
        None if failure.exit == crate::failure::Exit::CommandLine => {
            Failure::login(failure.message).next("keystead login, or --password-file, or --client-certificate; the profile file may have them")
        }
        _ => failure,
    })
}

fn hidden(value: &SecretString) -> Result<header::HeaderValue, Failure> {
    let mut value = header::HeaderValue::from_str(value.expose_secret())
        .map_err(|_| Failure::login("the stored session is damaged").next("log in again: keystead login"))?;
    value.set_sensitive(true);
    Ok(value)
}

fn client(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<reqwest::Client, Failure> {
    builder(ca, certificate, key)?.https_only(true).build().map_err(|error| no_tls(&error))
}

fn builder(ca: Option<&Path>, certificate: Option<&Path>, key: Option<&Path>) -> Result<reqwest::ClientBuilder, Failure> {
    let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| no_tls(&error))?
        .with_root_certificates(roots(ca)?);
    let config = match (certificate, key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(certificate), Some(key)) => {
            let chain = certificates("--client-certificate", certificate)?;
            let key = PrivateKeyDer::from_pem_file(key).map_err(|error| Failure::command_line(format!("--client-key {}: {error}", key.display())))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| Failure::command_line(format!("the client certificate and its key cannot be used: {error}")))?
        }
        _ => return Err(Failure::command_line("a client certificate and its key come together").next("--client-certificate and --client-key")),
    };
    let builder = reqwest::Client::builder().tls_backend_preconfigured(config).redirect(reqwest::redirect::Policy::none()).referer(false);
    // Who runs a proxy for the web has not meant that it sees the key manager.
    Ok(builder.no_proxy().connect_timeout(CONNECT).timeout(ANSWER))
}

fn no_tls(why: &dyn std::fmt::Display) -> Failure {
    Failure::command_line(format!("TLS cannot be set up: {why}"))
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, Failure> {
    let mut roots = RootCertStore::empty();
    match ca {
        Some(path) => {
            for certificate in certificates("--ca", path)? {
                roots.add(certificate).map_err(|error| Failure::command_line(format!("--ca {}: {error}", path.display())))?;
            }
        }
        None => {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
    }
    Ok(roots)
}

fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Failure> {
    let unreadable = |why: &dyn std::fmt::Display| Failure::command_line(format!("{option} {}: {why}", path.display()));
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).map_err(|error| unreadable(&error))?.collect();
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unreadable(&"there is no certificate in it")),
        Err(error) => Err(unreadable(&error)),
    }
}

/// What TLS has said, wherever it stands among the causes.
fn tls_error<'e>(error: &'e (dyn StdError + 'static)) -> Option<&'e rustls::Error> {
    let mut at = Some(error);
    while let Some(error) = at {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // An I/O error does not name what it wraps among its causes.
        let wrapped = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        at = match wrapped {
            Some(wrapped) => Some(wrapped as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// A node that answers what it was told to, in that order, without TLS; `None`: it ends the connection instead. Answers a context for it, and what it was asked.
#[cfg(test)]
pub(crate) async fn scripted(answers: Vec<Option<(u16, Value)>>) -> (Context, tokio::task::JoinHandle<Vec<String>>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let node = tokio::spawn(async move {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            asked.push(head.split(" HTTP/").next().unwrap().to_owned());
            if let Some((status, body)) = answer {
                let body = body.to_string();
                let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
                stream.write_all(text.as_bytes()).await.unwrap();
            }
        }
        asked
    });
    let client = builder(None, None, None).unwrap().build().unwrap();
    (Context { client, endpoint, user: "admin".to_owned(), login: Login::Certificate, output: Output::Table }, node)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_an_address_with_or_without_https() {
        for good in ["node:8443", "https://node:8443", "https://node:8443/"] {
            assert_eq!(endpoint(good).unwrap(), "https://node:8443");
        }
        for bad in ["", "http://node:8443", "https://node/api", "a@node", "a b"] {
            assert!(endpoint(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_value_of_a_query_stands_for_itself() {
        assert_eq!(exactly("a*|\"b\\"), "\"a*|\\\"b\\\\\"");
        assert_eq!(path_and_query("/svm/svms", &[("name", &exactly("a b"))]), "/api/svm/svms?name=%22a%20b%22");
        assert_eq!(path_and_query("/cluster", &[]), "/api/cluster");
    }

    #[tokio::test]
    async fn a_list_is_all_of_its_pages() {
        let page = |names: &[&str], next: Value| {
            let records: Vec<Value> = names.iter().map(|name| json!({ "name": name })).collect();
            Some((200, json!({ "num_records": names.len(), "records": records, "_links": { "self": { "href": "/api/x" }, "next": next } })))
        };
        let next = |n: u8| json!({ "href": format!("/api/x?start={n}") });
        let (context, node) = scripted(vec![page(&["a", "b"], next(1)), page(&[], next(2)), page(&["c"], Value::Null)]).await;
        let all = context.list("/x", &[("fields", "*")]).await.unwrap();
        assert_eq!(
            all,
            json!({ "num_records": 3, "records": [{ "name": "a" }, { "name": "b" }, { "name": "c" }], "_links": { "self": { "href": "/api/x" } } })
        );
        assert_eq!(node.await.unwrap(), ["GET /api/x?fields=%2A", "GET /api/x?start=1", "GET /api/x?start=2"]);
    }

    #[tokio::test]
    async fn what_is_no_keystead_is_not_believed() {
        let (context, _node) = scripted(vec![None]).await;
        assert_eq!(context.get("/cluster", &[]).await.unwrap_err().exit, crate::failure::Exit::Unreachable);
        let refused = json!({ "error": { "code": "6691623", "message": "no" } });
        let (context, _node) = scripted(vec![Some((401, refused))]).await;
        let failure = context.get("/cluster", &[]).await.unwrap_err();
        assert_eq!((failure.exit, failure.code.as_deref()), (crate::failure::Exit::Login, Some("6691623")));
    }
}
