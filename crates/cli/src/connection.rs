//! The connection to a node: where it is, whether it is the right one, who asks, and the calls.

pub use crate::options::{Common, Output};

use crate::failure::Failure;
use crate::login::{self, Way, Who};
use crate::profile;
use crate::secret::Asked;
use crate::session::{self, Session};
use crate::table;
use crate::transport;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, Response, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use std::io::Write as _;
use std::time::Duration;

/// The longest answer that is read. Ten thousand configurations, which is a page, are a third of it.
const MOST_BYTES: usize = 64 << 20;
/// The most pages of a list.
const MOST_PAGES: usize = 10_000;
/// What stands in a URL as it is (RFC 3986, unreserved).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

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
    pub async fn open(common: &Common) -> Result<Self, Failure> {
        let (mut context, who) = Self::unknown(common, login::who)?;
        context.login = match who.way {
            Way::Certificate { .. } => Login::Certificate,
            Way::Unsaid => match session::stored(&context.endpoint, &context.user) {
                Some(session) => Login::Session(session),
                None => Login::Password(password(&context.endpoint, who).await?),
            },
            _ => Login::Password(password(&context.endpoint, who).await?),
        };
        Ok(context)
    }

    /// The same to begin a session with, by a password that was given or is asked for.
    pub(crate) async fn to_begin(common: &Common) -> Result<Self, Failure> {
        let (mut context, who) = Self::unknown(common, login::who_has_sessions)?;
        context.login = Login::Password(password(&context.endpoint, who).await?);
        Ok(context)
    }

    /// The same with the session that was begun, if there is one.
    pub(crate) fn in_session(common: &Common) -> Result<Option<Self>, Failure> {
        let (mut context, _) = Self::unknown(common, login::who_has_sessions)?;
        Ok(session::stored(&context.endpoint, &context.user).map(|session| {
            context.login = Login::Session(session);
            context
        }))
    }

    fn unknown(common: &Common, who: impl FnOnce(&Common, &profile::Profile, &str) -> Result<Who, Failure>) -> Result<(Self, Who), Failure> {
        let profile = profile::read(common.profile_file.as_deref(), common.profile.as_deref())?;
        let endpoint =
            endpoint_of(common.endpoint.as_deref().or(profile.endpoint.as_deref()).ok_or_else(|| {
                Failure::command_line("no node is named").next("--endpoint HOST:PORT, or KEYSTEAD_ENDPOINT, or endpoint in the profile file")
            })?)?;
        let who = who(common, &profile, &endpoint)?;
        let client = transport::client(common.ca.as_deref().or(profile.ca.as_deref()), who.way.identity())?;
        Ok((Self { client, endpoint, user: who.user.clone(), login: Login::None, output: common.output }, who))
    }

    /// For a node of a test.
    #[cfg(test)]
    pub(crate) fn of_tests(endpoint: String) -> Self {
        let client = transport::builder(None, None).unwrap().build().unwrap();
        Self { client, endpoint, user: "admin".to_owned(), login: Login::Certificate, output: Output::Table }
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
    ///
    /// # Errors
    /// 1 it cannot be written.
    pub fn say(&self, json: &Value, words: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.is_json() { table::print(&format!("{json:#}\n")) } else { table::print(&words()) }
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

    /// A GET that is given up after a time.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached, or says nothing.
    pub(crate) async fn get_within(&self, path: &str, query: &[(&str, &str)], most: Duration) -> Result<Value, Failure> {
        Ok(self.send(Method::GET, &path_and_query(path, query), None, Some(most)).await?.body)
    }

    /// A collection, all of its pages as one.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached.
    pub async fn list(&self, path: &str, query: &[(&str, &str)]) -> Result<Value, Failure> {
        let (mut pages, mut all) = (self.pages(path, query), Vec::new());
        while let Some(mut page) = pages.next().await? {
            all.append(&mut page);
        }
        Ok(pages.whole(&all))
    }

    /// A collection, page by page.
    pub fn pages(&self, path: &str, query: &[(&str, &str)]) -> Pages<'_> {
        Pages { context: self, next: Some(path_and_query(path, query)), taken: 0, own: Value::Null }
    }

    /// Any call.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached.
    pub async fn call(&self, method: Method, path: &str, query: &[(&str, &str)], body: Option<Value>) -> Result<Answer, Failure> {
        self.send(method, &path_and_query(path, query), body, None).await
    }

    /// `most`: how long it may take, where that is less than usual.
    async fn send(&self, method: Method, path: &str, body: Option<Value>, most: Option<Duration>) -> Result<Answer, Failure> {
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
        if let Some(most) = most {
            request = request.timeout(most);
        }
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json").body(body.to_string());
        }
        let answered = async { self.read(request.send().await.map_err(|error| self.no_answer(&error))?).await };
        answered.await.map_err(|failure| match failure.may_be_done && changes {
            true => Failure { message: format!("{}; it may be done all the same", failure.message), ..failure },
            false => Failure { may_be_done: false, ..failure },
        })
    }

    async fn read(&self, response: Response) -> Result<Answer, Failure> {
        let (status, headers) = (response.status(), response.headers().clone());
        let text = self.bounded(response).await?;
        for warning in headers.get_all(header::WARNING).iter().filter_map(|warning| warning.to_str().ok()) {
            // Nobody may read it any more.
            let _ = writeln!(std::io::stderr().lock(), "keystead: the node says: {}", table::plain(warning));
        }
        let Ok(body) = serde_json::from_slice::<Value>(&text) else {
            return Err(Failure::unreachable(format!("what answers at {} is no Keystead: status {status}, and no JSON", self.endpoint))
                .next("look at --endpoint: it is the address of a node's REST API"));
        };
        if status.is_success() {
            return Ok(Answer { body, headers });
        }
        let wait = headers.get(header::RETRY_AFTER).and_then(|wait| wait.to_str().ok()?.parse().ok());
        let failure = Failure::of_api(body.get("error").unwrap_or(&Value::Null)).to_be_tried_again(wait.map(Duration::from_secs));
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
    /// The body of an answer, as far as it has a length that an answer of a node has.
    async fn bounded(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| self.no_answer(&error))? {
            if text.len() + part.len() > MOST_BYTES {
                return Err(Failure::unreachable(format!("what answers at {} is no Keystead: an answer has more than {MOST_BYTES} bytes", self.endpoint)));
            }
            text.extend_from_slice(&part);
        }
        Ok(text)
    }

    fn no_answer(&self, error: &reqwest::Error) -> Failure {
        transport::no_answer(&self.endpoint, matches!(self.login, Login::Certificate), error)
    }
}

/// The pages of a collection.
pub struct Pages<'c> {
    context: &'c Context,
    next: Option<String>,
    taken: usize,
    /// The link of the first page to itself.
    own: Value,
}

impl Pages<'_> {
    /// The records of the next page, which may be none.
    ///
    /// # Errors
    /// The API's; 4 the node cannot be reached; 1 there is no end of them, or what comes next is not of the API.
    pub async fn next(&mut self) -> Result<Option<Vec<Value>>, Failure> {
        let Some(path) = self.next.take() else { return Ok(None) };
        if self.taken == MOST_PAGES {
            return Err(Failure::failed(format!("the list of {} has no end: {MOST_PAGES} pages were read", self.context.endpoint)));
        }
        let mut page = self.context.send(Method::GET, &path, None, None).await?.body;
        if self.taken == 0 {
            self.own = page.pointer("/_links/self").cloned().unwrap_or_default();
        }
        self.taken += 1;
        self.next = match page.pointer("/_links/next/href").and_then(Value::as_str) {
            // It is put behind the node's address as it is.
            Some(next) if !next.starts_with("/api/") => {
                return Err(Failure::failed(format!("the list of {} goes on at {next:?}, which is not of the API", self.context.endpoint)));
            }
            next => next.map(str::to_owned),
        };
        Ok(Some(records(&mut page)))
    }

    /// All of them as one page.
    pub fn whole(&self, all: &[Value]) -> Value {
        json!({ "num_records": all.len(), "records": all, "_links": { "self": self.own } })
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
pub(crate) fn endpoint_of(text: &str) -> Result<String, Failure> {
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

async fn password(endpoint: &str, who: Who) -> Result<SecretString, Failure> {
    let file = match who.way {
        Way::Password(password) => return Ok(password),
        Way::PasswordFile(file) => Some(file),
        _ => None,
    };
    let asked = Asked { what: "the password", option: "--password-file", prompt: &format!("Password of {} at {endpoint}: ", table::plain(&who.user)) };
    asked.take(file.as_deref()).await.map_err(|failure| match file {
        // Nothing is wrong with the command but that nobody is logged in.
        None if failure.exit == crate::failure::Exit::CommandLine => {
            let unused = who.unused.map(|unused| format!("; {unused}")).unwrap_or_default();
            Failure::login(failure.message).next(format!("keystead login, or --password-file, or --client-certificate; the profile file may have them{unused}"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Exit;
    use crate::scripted::{Reply, replying, scripted};

    #[test]
    fn an_endpoint_is_an_address_with_or_without_https() {
        for good in ["node:8443", "https://node:8443", "https://node:8443/"] {
            assert_eq!(endpoint_of(good).unwrap(), "https://node:8443");
        }
        for bad in ["", "http://node:8443", "https://node/api", "a@node", "a b"] {
            assert!(endpoint_of(bad).is_err(), "{bad}");
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

    #[tokio::test]
    async fn a_list_without_end_or_that_leads_elsewhere_is_given_up() {
        let leads = |next: &str| json!({ "records": [{ "name": "a" }], "_links": { "next": { "href": next } } });
        for elsewhere in ["@elsewhere.example/api/x", "https://elsewhere.example/api/x", ":1/api/x"] {
            let (context, node) = scripted(vec![Some((200, leads(elsewhere)))]).await;
            let failure = context.list("/x", &[]).await.unwrap_err();
            assert!(failure.exit == Exit::Failed && failure.message.contains("not of the API"), "{failure:?}");
            assert_eq!(node.await.unwrap().len(), 1);
        }
        let (context, _node) = scripted(vec![Some((200, leads("/api/x")))]).await;
        let failure = Pages { taken: MOST_PAGES, ..context.pages("/x", &[]) }.next().await.unwrap_err();
        assert!(failure.message.contains("no end"), "{failure:?}");
    }

    #[tokio::test]
    async fn an_answer_has_a_bounded_length() {
        let (context, _node) = replying(vec![Reply::Answer(200, "", format!("\"{}\"", "a".repeat(MOST_BYTES)))]).await;
        let failure = context.get("/x", &[]).await.unwrap_err();
        assert!(failure.exit == Exit::Unreachable && failure.message.contains("bytes"), "{failure:?}");
    }

    #[tokio::test]
    async fn when_to_try_again_is_what_the_node_says() {
        let refused = json!({ "error": { "code": "262160", "message": "too many" } }).to_string();
        let (context, _node) = replying(vec![Reply::Answer(429, "retry-after: 17\r\n", refused)]).await;
        let failure = context.get("/x", &[]).await.unwrap_err();
        assert_eq!((failure.exit, failure.next.as_deref()), (Exit::Unreachable, Some("try again in 17 s")));
    }

    #[tokio::test]
    async fn what_was_sent_and_not_answered_may_be_done() {
        let (context, _node) = replying(vec![Reply::End, Reply::Hang]).await;
        let changed = context.call(Method::POST, "/x", &[], Some(json!({}))).await.unwrap_err();
        assert!(changed.may_be_done && changed.message.ends_with("it may be done all the same"), "{changed:?}");
        let silent = context.get_within("/x", &[], Duration::from_millis(100)).await.unwrap_err();
        assert!(silent.message.ends_with("no answer in time") && !silent.may_be_done, "{silent:?}");
        let nobody = Context::of_tests("http://127.0.0.1:1".to_owned());
        assert!(!nobody.call(Method::POST, "/x", &[], None).await.unwrap_err().may_be_done);
    }
}
