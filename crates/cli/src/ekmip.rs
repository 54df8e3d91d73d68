//! `ekmip client`: the certificates with which storage, hypervisors and databases get keys of an SVM.

use crate::body::Body;
use crate::connection::{Common, Context, exactly, segment};
use crate::failure::Failure;
use crate::table;
use crate::vserver;
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
    /// Those of this SVM.
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
            let context = Context::open(&arguments.common)?;
            if let Some(vserver) = &arguments.vserver {
                vserver::uuid(&context, vserver).await?;
            }
            let svm = arguments.vserver.as_deref().map(exactly);
            let mut query = vec![("fields", "*"), ("order_by", "svm.name,common_name")];
            query.extend(svm.as_deref().map(|svm| ("svm.name", svm)));
            let all = context.list(PATH, &query).await?;
            let columns = [("Vserver", "svm.name"), ("Common name", "common_name"), ("State", "state"), ("Valid until", "expiry_time"), ("UUID", "uuid")];
            context.say(&all, || table::of_records(&all, &columns));
            Ok(())
        }
        ClientCommand::Revoke(arguments) => {
            let context = Context::open(&arguments.common)?;
            let answer = context.call(Method::DELETE, &format!("{PATH}/{}", segment(&arguments.client)), &[], None).await?;
            context.say(&answer.body, || format!("the certificate {} is revoked.\n", arguments.client));
            Ok(())
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
    let files = Files::make(&arguments.out, arguments.csr_file.is_none())?;
    let made = async {
        let context = Context::open(&arguments.common)?;
        let answer = context.call(Method::POST, PATH, &[("return_records", "true")], Some(body.whole())).await?;
        Ok((context, answer.body))
    };
    let (context, answer) = match made.await {
        Ok(made) => made,
        Err(failure) => {
            files.take_away();
            return Err(failure);
        }
    };
    let record = answer.pointer("/records/0").and_then(Value::as_object).cloned().unwrap_or_default();
    let uuid = record.get("uuid").and_then(Value::as_str).unwrap_or_default();
    files.write(&record).map_err(|error| {
        Failure::failed(format!("the certificate is made, and cannot be written: {}: {error}", arguments.out.display()))
            .next(format!("revoke it, and make another: keystead ekmip client revoke {uuid}"))
    })?;
    // The private key is in its file alone.
    let shown: Map<String, Value> = record.iter().filter(|(name, _)| *name != "private_key").map(|(name, value)| (name.clone(), value.clone())).collect();
    context.say(&json!({ "num_records": 1, "records": [shown] }), || format!("certificate {uuid} of the SVM {}: {}\n", arguments.vserver, files.names()));
    Ok(())
}

/// The files of a certificate, made but empty.
struct Files {
    folder: PathBuf,
    files: Vec<(&'static str, &'static str, File)>,
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
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| failed(error, folder))?;
        let mut made = Self { folder: folder.to_owned(), files: Vec::new() };
        let wanted = [("client.pem", "certificate", 0o644), ("client.key", "private_key", 0o600), ("ca.pem", "ca_certificate", 0o644)];
        for (name, field, mode) in wanted.into_iter().filter(|(_, field, _)| with_key || *field != "private_key") {
            let path = folder.join(name);
            match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
                Ok(file) => made.files.push((name, field, file)),
                Err(error) => {
                    made.take_away();
                    return Err(failed(error, &path));
                }
            }
        }
        Ok(made)
    }

    fn write(&self, record: &Map<String, Value>) -> std::io::Result<()> {
        for (name, field, file) in &self.files {
            let text = record.get(*field).and_then(Value::as_str).ok_or_else(|| std::io::Error::other(format!("the node has sent nothing for {name}")))?;
            let mut file = file;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
        }
        Ok(())
    }

    fn take_away(&self) {
        for (name, ..) in &self.files {
            let _ = std::fs::remove_file(self.folder.join(name));
        }
    }

    fn names(&self) -> String {
        let paths: Vec<String> = self.files.iter().map(|(name, ..)| self.folder.join(name).display().to_string()).collect();
        paths.join(", ")
    }
}
