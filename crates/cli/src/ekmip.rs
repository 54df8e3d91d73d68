//! `ekmip client`: the certificates with which storage, hypervisors and databases get keys of an SVM.

use crate::body::Body;
use crate::connection::{Common, Context, segment};
use crate::failure::Failure;
use crate::table::{self, plain};
use crate::{vserver, wait};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

const PATH: &str = "/security/ekmip/clients";

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// The certificates with which clients get keys of an SVM.
    #[command(subcommand)]
    Client(ClientCommand),
}

/// The commands of `client`.
#[derive(Debug, Subcommand)]
pub enum ClientCommand {
    /// Make a certificate that gets the keys of an SVM, and its private key; with --csr-file, for a key that is elsewhere.
    Create(CreateArguments),
    /// Show the certificates.
    Show(ShowArguments),
    /// Revoke a certificate: from then on, it gets no key.
    Revoke(RevokeArguments),
}

/// The options of `create`.
#[derive(Debug, Args)]
pub struct CreateArguments {
    /// The SVM whose keys it gets.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    /// What the certificate calls its owner.
    #[arg(long, value_name = "NAME")]
    common_name: String,
    /// How long it is valid, as an ISO 8601 duration; P365DT by default.
    #[arg(long, value_name = "DURATION")]
    expiry_time: Option<String>,
    /// PEM file of a certificate signing request: no private key is made then.
    #[arg(long, value_name = "FILE")]
    csr_file: Option<PathBuf>,
    /// The folder to write client.pem, client.key (which nobody else can read) and ca.pem into; none of them may be there yet.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    common: Common,
}

/// The options of `show`.
#[derive(Debug, Args)]
pub struct ShowArguments {
    /// Those of this SVM; with * those of several.
    #[arg(long, value_name = "NAME")]
    vserver: Option<String>,
    #[command(flatten)]
    common: Common,
}

/// The options of `revoke`.
#[derive(Debug, Args)]
pub struct RevokeArguments {
    /// The certificate: its UUID, as show has it.
    #[arg(value_name = "UUID")]
    client: String,
    #[command(flatten)]
    common: Common,
}

/// Runs a command.
///
/// # Errors
/// As it is told.
pub async fn run(Command::Client(command): Command) -> Result<(), Failure> {
    match command {
        ClientCommand::Create(arguments) => create(arguments).await,
        ClientCommand::Show(arguments) => {
            let context = Context::open(&arguments.common).await?;
            let svm = match &arguments.vserver {
                Some(name) => Some(vserver::query(&context, name).await?),
                None => None,
            };
            let mut query = vec![("fields", "*"), ("order_by", "svm.name,common_name")];
            query.extend(svm.as_deref().map(|svm| ("svm.name", svm)));
            let all = context.list(PATH, &query).await?;
            let columns = [("Vserver", "svm.name"), ("Common name", "common_name"), ("State", "state"), ("Valid until", "expiry_time"), ("UUID", "uuid")];
            context.say(&all, || table::of_records(&all, &columns))
        }
        ClientCommand::Revoke(arguments) => {
            let context = Context::open(&arguments.common).await?;
            let answer = context.call(Method::DELETE, &format!("{PATH}/{}", segment(&arguments.client)), &[], None).await?;
            context.say(&answer.body, || format!("the certificate {} is revoked.\n", arguments.client))
        }
    }
}

async fn create(arguments: CreateArguments) -> Result<(), Failure> {
    let mut body = Body::default();
    body.put("svm", Some(json!({ "name": arguments.vserver })));
    body.put("common_name", Some(arguments.common_name));
    body.put("expiry_time", arguments.expiry_time);
    if let Some(path) = &arguments.csr_file {
        let csr = std::fs::read_to_string(path).map_err(|error| Failure::command_line(format!("--csr-file {}: {error}", path.display())))?;
        body.put("csr", Some(csr));
    }
    // Before anything is asked for: a private key that cannot be written would be lost.
    let mut files = Files::make(&arguments.out, arguments.csr_file.is_none())?;
    let context = Context::open(&arguments.common).await?;
    let look = format!(
        "the node may have made the certificate: see keystead ekmip client show --vserver {}, and revoke it: keystead ekmip client revoke UUID",
        arguments.vserver
    );
    let call = context.call(Method::POST, PATH, &[("return_records", "true")], Some(body.whole()));
    let answer = match wait::interruptible(call).await {
        Ok(Err(failure)) if failure.may_be_done => Err(failure.next(look)),
        Ok(answered) => answered,
        Err(interrupted) => Err(Failure { message: "stopped before the node has answered".to_owned(), ..interrupted }.next(look)),
    }?;
    let record = answer.body.pointer("/records/0").and_then(Value::as_object).cloned().unwrap_or_default();
    let uuid = plain(record.get("uuid").and_then(Value::as_str).unwrap_or_default());
    files.write(&record).map_err(|error| {
        Failure::failed(format!("the certificate is made, and cannot be written: {}: {error}", arguments.out.display()))
            .next(format!("revoke it, and make another: keystead ekmip client revoke {uuid}"))
    })?;
    // The private key is in its file alone.
    let shown: Map<String, Value> = record.iter().filter(|(name, _)| *name != "private_key").map(|(name, value)| (name.clone(), value.clone())).collect();
    context.say(&json!({ "num_records": 1, "records": [shown] }), || format!("certificate {uuid} of the SVM {}: {}\n", arguments.vserver, files.names()))
}

/// The files of a certificate, made but empty. They go again unless they are written to their end.
struct Files {
    folder: PathBuf,
    /// The folder was not there before.
    is_new: bool,
    files: Vec<(&'static str, &'static str, File)>,
    written: bool,
}

impl Files {
    /// Makes them; none may be there yet.
    fn make(folder: &Path, with_key: bool) -> Result<Self, Failure> {
        let failed = |error: std::io::Error, path: &Path| {
            let failure = Failure::command_line(format!("--out {}: {error}", path.display()));
            if error.kind() == std::io::ErrorKind::AlreadyExists {
                failure.next("name a folder without these files: they may be a certificate that is in use")
            } else {
                failure
            }
        };
        let is_new = !folder.exists();
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(error, folder))?;
        let mut made = Self { folder: folder.to_owned(), is_new, files: Vec::new(), written: false };
        let wanted = [("client.pem", "certificate", 0o644), ("client.key", "private_key", 0o600), ("ca.pem", "ca_certificate", 0o644)];
        for (name, field, mode) in wanted.into_iter().filter(|(_, field, _)| with_key || *field != "private_key") {
            let path = folder.join(name);
            let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path).map_err(|error| failed(error, &path))?;
            made.files.push((name, field, file));
        }
        Ok(made)
    }

    fn write(&mut self, record: &Map<String, Value>) -> std::io::Result<()> {
        for (name, field, file) in &mut self.files {
            let text = record.get(*field).and_then(Value::as_str).ok_or_else(|| std::io::Error::other(format!("the node has sent nothing for {name}")))?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        self.written = true;
        Ok(())
    }

    fn names(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|(name, ..)| self.folder.join(name).display().to_string()).collect();
        paths.join(", ")
    }
}

/// Whatever ends the command, Ctrl-C too, leaves no empty files behind, which would be in the way of the next try.
impl Drop for Files {
    fn drop(&mut self) {
        if self.written {
            return;
        }
        for (name, ..) in &self.files {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
        if self.is_new {
            let _ = std::fs::remove_dir(&self.folder);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_were_not_written_go_again_and_those_of_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("a/out");
        drop(Files::make(&out, true).unwrap());
        assert!(!out.exists());
        let mut files = Files::make(&out, false).unwrap();
        let record = json!({ "certificate": "c", "ca_certificate": "ca", "private_key": "k" });
        files.write(record.as_object().unwrap()).unwrap();
        drop(files);
        assert!(std::fs::read_to_string(out.join("client.pem")).unwrap() == "c" && !out.join("client.key").exists());
        // The second of them is in the way of another try, and stays.
        std::fs::remove_file(out.join("client.pem")).unwrap();
        assert!(Files::make(&out, true).is_err());
        assert!(!out.join("client.pem").exists() && !out.join("client.key").exists() && out.join("ca.pem").exists());
        // Half of a certificate is none.
        let mut files = Files::make(&out.join("half"), true).unwrap();
        assert!(files.write(json!({ "certificate": "c" }).as_object().unwrap()).is_err());
        drop(files);
        assert!(!out.join("half").exists());
    }
}
