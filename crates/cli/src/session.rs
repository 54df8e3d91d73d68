//! Sessions: `keystead login` asks for the password once, and commands go on with what the node has given for it. It is kept in a file that nobody else can read, until `keystead logout`, or until the node says that it has ended.

use crate::connection::{Common, Context, segment};
use crate::failure::{Exit, Failure};
use crate::profile::folder;
use crate::table::plain;
use clap::Args;
use reqwest::{Method, header};
use secrecy::SecretString;
use serde_json::{Value, json};
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

const PATH: &str = "/security/ekmip/sessions";

/// The options of `login`.
#[derive(Debug, Args)]
pub struct LoginArguments {
    #[command(flatten)]
    common: Common,
}

/// The options of `logout`.
#[derive(Debug, Args)]
pub struct LogoutArguments {
    #[command(flatten)]
    common: Common,
}

/// A session that was begun.
#[derive(Debug)]
pub(crate) struct Session {
    /// `name=value`.
    pub cookie: SecretString,
    /// What a change brings as well.
    pub csrf_token: SecretString,
    uuid: String,
    file: PathBuf,
}

/// Begins a session.
///
/// # Errors
/// 3 the login is refused; 4 the node cannot be reached; 1 the session cannot be kept, and is ended again.
pub async fn login(arguments: LoginArguments) -> Result<(), Failure> {
    let context = Context::to_begin(&arguments.common).await?;
    let file = place(context.endpoint(), context.user())
        .ok_or_else(|| Failure::command_line("there is no place for the session: neither HOME nor XDG_STATE_HOME names a folder"))?;
    let unkept = |error: std::io::Error| Failure::failed(format!("the session cannot be kept: {}: {error}", file.display()));
    // Before a session is begun that could not be kept.
    let part = Part::make(&file).map_err(unkept)?;
    let answer = context.call(Method::POST, PATH, &[], Some(json!({}))).await?;
    let record = answer.body.pointer("/records/0").cloned().unwrap_or_default();
    let text = |name: &str| record.get(name).and_then(Value::as_str).unwrap_or_default();
    let cookie = answer.headers.get(header::SET_COOKIE).and_then(|cookie| cookie.to_str().ok()).and_then(|cookie| cookie.split(';').next());
    let kept = cookie.ok_or_else(|| Failure::failed("the node has begun a session, and has not said by what it knows it")).and_then(|cookie| {
        let kept = Zeroizing::new(json!({ "uuid": text("uuid"), "cookie": cookie, "csrf_token": text("csrf_token") }).to_string());
        part.keep(&file, kept.as_bytes()).map_err(unkept)
    });
    if let Err(failure) = kept {
        // By the password: nobody has its token. It would end by itself after a while.
        let _ = context.call(Method::DELETE, &format!("{PATH}/{}", segment(text("uuid"))), &[], None).await;
        return Err(failure);
    }
    // The API's answer has the token of the session.
    let shown = json!({ "uuid": text("uuid"), "account": record.get("account"), "end_time": record.get("end_time") });
    context.say(&shown, || format!("{} is logged in at {}, until {} at the latest\n", plain(context.user()), context.endpoint(), plain(text("end_time"))))
}

/// Ends the session, here and at the node. As long as the node may know it, it is kept: it could not be ended otherwise.
///
/// # Errors
/// 3 there is none; 4 the node cannot be reached.
pub async fn logout(arguments: LogoutArguments) -> Result<(), Failure> {
    let context = Context::in_session(&arguments.common)?;
    let Some((context, session)) = context.as_ref().and_then(|context| Some((context, context.session()?))) else {
        return Err(Failure::login("nobody is logged in there"));
    };
    match context.call(Method::DELETE, &format!("{PATH}/{}", segment(&session.uuid)), &[], None).await {
        Ok(_) => session.forget(),
        Err(failure) => {
            // With a 401, that is done already.
            return Err(match failure.exit {
                Exit::NotFound => {
                    session.forget();
                    failure
                }
                Exit::Unreachable => {
                    failure.next("the session is still there: log out again when the node answers; it ends by itself 15 minutes after its last use")
                }
                _ => failure,
            });
        }
    }
    context.say(&json!({}), || format!("{} is logged out at {}\n", plain(context.user()), context.endpoint()))
}

/// The session that was begun there, if there is one.
pub(crate) fn stored(endpoint: &str, user: &str) -> Option<Session> {
    let file = place(endpoint, user)?;
    let kept: Value = serde_json::from_slice(&Zeroizing::new(std::fs::read(&file).ok()?)).ok()?;
    let text = |name: &str| kept.get(name).and_then(Value::as_str);
    Some(Session { cookie: text("cookie")?.into(), csrf_token: text("csrf_token")?.into(), uuid: text("uuid")?.to_owned(), file })
}

impl Session {
    /// Takes it away here.
    pub fn forget(&self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

/// One file for each node and account, under `$XDG_STATE_HOME` or `~/.local/state`: a node knows its own sessions alone.
fn place(endpoint: &str, user: &str) -> Option<PathBuf> {
    let name = format!("{}-{}.json", segment(endpoint.trim_start_matches("https://")), segment(user));
    Some(folder("XDG_STATE_HOME", ".local/state")?.join("keystead/sessions").join(name))
}

/// A file that nobody else can read, before it is at its place. It goes again unless it is kept.
struct Part {
    path: PathBuf,
    open: File,
}

impl Part {
    /// Makes it beside its place, and the folders that are missing.
    fn make(file: &Path) -> std::io::Result<Self> {
        if let Some(folder) = file.parent() {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let path = file.with_extension(format!("{}.part", std::process::id()));
        // Of a program that had this number before, and was killed.
        let _ = std::fs::remove_file(&path);
        let open = File::options().write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { path, open })
    }

    /// Puts it at its place with all that is to stand in it.
    fn keep(mut self, file: &Path, bytes: &[u8]) -> std::io::Result<()> {
        self.open.write_all(bytes)?;
        std::fs::rename(&self.path, file)
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn nobody_else_can_read_a_session() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a/b/s.json");
        for text in ["one", "two"] {
            Part::make(&file).unwrap().keep(&file, text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&file).unwrap(), text);
        }
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(std::fs::metadata(folder.path().join("a")).unwrap().permissions().mode() & 0o777, 0o700);
        drop(Part::make(&file).unwrap());
        assert_eq!(std::fs::read_dir(folder.path().join("a/b")).unwrap().count(), 1, "a part that was not kept stays");
    }
}
