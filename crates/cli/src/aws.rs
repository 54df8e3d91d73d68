//! `security key-manager external aws`: the customer key of each SVM.

use crate::aws_settings::{Changes, Credentials, Polling, Settings};
use crate::aws_show;
use crate::body::Body;
use crate::connection::{Common, Context, exactly, segment};
use crate::failure::Failure;
use crate::secret::one_standard_input;
use crate::vserver;
use crate::wait::{Waiting, to_the_end};
use clap::{ArgAction, Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

/// Where configurations stand.
pub const PATH: &str = "/security/aws-kms";
/// Where key stores stand, with the identifiers of the configurations that they belong to.
const KEY_STORES: &str = "/security/key-stores";
/// What AWS, or the way to it, has refused.
const AWS_REFUSES: &[&str] = &["65537538", "65537900", "65537915", "65537919", "65537921", "65537544"];

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Root the keys of an SVM in a customer key of AWS KMS.
    Enable(EnableArguments),
    /// Take the configuration of an SVM away. It must have no keys any more.
    Disable(SvmArguments),
    /// Show the configurations; of one SVM, also whether its keys are usable and what reaches what.
    Show(aws_show::ShowArguments),
    /// Walk the way to AWS step by step, use the key, and say which step fails and what to do.
    Check(aws_show::CheckArguments),
    /// Have every node load the keys of an SVM that it lacks.
    Restore(SvmArguments),
    /// Make a new version of an SVM's KEK, and wrap every key by it.
    RekeyInternal(SvmArguments),
    /// Wrap an SVM's KEK by another customer key, or again by a rotated one. Where the key is elsewhere, credentials and settings say how it is reached (Keystead's own).
    RekeyExternal(RekeyExternalArguments),
    /// Change how AWS is reached and polled. Given empty (""), --encryption-context, --host, --proxy-username, --access-error-grace and --max-unverified are taken away, and --service and
    /// --default-domain are what they are by default; --no-proxy takes the proxy away.
    UpdateConfig(UpdateConfigArguments),
    /// Change the AWS credentials.
    UpdateCredentials(UpdateCredentialsArguments),
}

/// The options of commands about one SVM.
#[derive(Debug, Args)]
pub struct SvmArguments {
    /// The SVM.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// The options of `enable`.
#[derive(Debug, Args)]
pub struct EnableArguments {
    /// The SVM.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    /// The AWS region.
    #[arg(long, value_name = "REGION")]
    region: String,
    /// The customer key: id, ARN, alias or alias ARN.
    #[arg(long, value_name = "KEY")]
    key_id: String,
    /// Store the credentials without trying them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    skip_verify: Option<bool>,
    /// Move the keys that the onboard key manager keeps for the SVM, in the same job (Keystead's own).
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    migrate_keys: Option<bool>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    polling: Polling,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// The options of `rekey-external`.
#[derive(Debug, Args)]
pub struct RekeyExternalArguments {
    /// The SVM.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    /// The customer key to wrap the KEK by: id, ARN, alias or alias ARN.
    #[arg(long, value_name = "KEY")]
    key_id: String,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// The options of `update-config`.
#[derive(Debug, Args)]
pub struct UpdateConfigArguments {
    /// The SVM.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    #[command(flatten)]
    changes: Changes,
    #[command(flatten)]
    polling: Polling,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// The options of `update-credentials`.
#[derive(Debug, Args)]
pub struct UpdateCredentialsArguments {
    /// The SVM.
    #[arg(long, value_name = "NAME")]
    vserver: String,
    /// Store the credentials without trying them.
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, requires = "access_key_id")]
    skip_verify: Option<bool>,
    #[command(flatten)]
    credentials: Credentials,
    #[command(flatten)]
    waiting: Waiting,
    #[command(flatten)]
    common: Common,
}

/// Runs a command.
///
/// # Errors
/// As it is told.
pub async fn run(command: Command) -> Result<(), Failure> {
    match command {
        Command::Enable(arguments) => enable(arguments).await,
        Command::Show(arguments) => aws_show::show(arguments).await,
        Command::Check(arguments) => aws_show::check(arguments).await,
        Command::Disable(arguments) => act(arguments, Method::DELETE, "", "AWS KMS is disabled").await,
        Command::Restore(arguments) => act(arguments, Method::POST, "/restore", "the keys are restored").await,
        Command::RekeyInternal(arguments) => act(arguments, Method::POST, "/rekey-internal", "the KEK is replaced").await,
        Command::RekeyExternal(arguments) => rekey_external(arguments).await,
        Command::UpdateConfig(arguments) => update_config(arguments).await,
        Command::UpdateCredentials(arguments) => update_credentials(arguments).await,
    }
}

async fn enable(arguments: EnableArguments) -> Result<(), Failure> {
    one_standard_input(&[password_file(&arguments.common), arguments.credentials.secret_file(), arguments.settings.secret_file()])?;
    let context = Context::open(&arguments.common).await?;
    let mut body = Body::default();
    body.put("svm", Some(json!({ "name": arguments.vserver })));
    body.put("region", Some(arguments.region));
    body.put("key_id", Some(arguments.key_id));
    body.put("skip_verify", arguments.skip_verify);
    body.put_own("migrate_keys", arguments.migrate_keys);
    if arguments.credentials.access_key_id.is_none() && arguments.credentials.credentials_source.is_none() {
        return Err(
            Failure::command_line("with which credentials? --access-key-id is missing").next("--access-key-id ID, or --credentials-source for the node's own")
        );
    }
    arguments.credentials.put(&mut body, false).await?;
    arguments.settings.put(&mut body).await?;
    arguments.polling.put(&mut body);
    let name = &arguments.vserver;
    let done = async {
        let answer = context.call(Method::POST, PATH, &[], Some(without_nulls(body.whole()))).await?;
        to_the_end(&context, answer, &arguments.waiting, &format!("SVM {name}")).await
    };
    done.await.map_err(|failure| {
        failure
            .next_for(AWS_REFUSES, "put right what the message names, and enable it again: nothing is kept of an enabling that has failed")
            .next_for(&["1260882", "2621462"], format!("make it: keystead vserver create --vserver {name}"))
    })
}

async fn act(arguments: SvmArguments, method: Method, action: &str, done: &str) -> Result<(), Failure> {
    let context = Context::open(&arguments.common).await?;
    change(&context, &arguments.vserver, method, action, None, &arguments.waiting, done).await
}

async fn rekey_external(arguments: RekeyExternalArguments) -> Result<(), Failure> {
    one_standard_input(&[password_file(&arguments.common), arguments.credentials.secret_file(), arguments.changes.secret_file()])?;
    let context = Context::open(&arguments.common).await?;
    let mut new = Body::default();
    arguments.credentials.put(&mut new, false).await?;
    arguments.changes.put(&mut new).await?;
    let mut body = Body::default();
    body.put("key_id", Some(arguments.key_id));
    body.put_own("new", (!new.is_empty()).then(|| new.flat()));
    change(&context, &arguments.vserver, Method::POST, "/rekey-external", Some(body.whole()), &arguments.waiting, "the KEK is wrapped again").await
}

async fn update_config(arguments: UpdateConfigArguments) -> Result<(), Failure> {
    one_standard_input(&[password_file(&arguments.common), arguments.changes.secret_file()])?;
    let context = Context::open(&arguments.common).await?;
    let mut body = Body::default();
    arguments.changes.put(&mut body).await?;
    arguments.polling.put(&mut body);
    if body.is_empty() {
        return Err(Failure::command_line("there is nothing to change").next("name a setting: keystead security key-manager external aws update-config --help"));
    }
    change(&context, &arguments.vserver, Method::PATCH, "", Some(body.whole()), &arguments.waiting, "the configuration is changed").await
}

async fn update_credentials(arguments: UpdateCredentialsArguments) -> Result<(), Failure> {
    one_standard_input(&[password_file(&arguments.common), arguments.credentials.secret_file()])?;
    let context = Context::open(&arguments.common).await?;
    let mut body = Body::default();
    body.put("skip_verify", arguments.skip_verify);
    arguments.credentials.put(&mut body, true).await?;
    change(&context, &arguments.vserver, Method::PATCH, "", Some(body.whole()), &arguments.waiting, "the credentials are changed").await
}

/// A call that changes the configuration of an SVM.
async fn change(context: &Context, vserver: &str, method: Method, action: &str, body: Option<Value>, waiting: &Waiting, done: &str) -> Result<(), Failure> {
    let uuid = uuid(context, vserver).await?;
    let done = async {
        let answer = context.call(method, &format!("{PATH}/{}{action}", segment(&uuid)), &[], body).await?;
        to_the_end(context, answer, waiting, &format!("SVM {vserver}: {done}")).await
    };
    done.await
        .map_err(|failure| failure.next_for(AWS_REFUSES, format!("see which step fails: keystead security key-manager external aws check --vserver {vserver}")))
}

/// The identifier of the configuration of an SVM, also of one that is being enabled: that is not among the configurations yet, and can be given up by `disable`.
///
/// # Errors
/// 5 it has none, or there is no such SVM for this account.
pub async fn uuid(context: &Context, vserver: &str) -> Result<String, Failure> {
    let of = async |name: &str| {
        let found = context.get(KEY_STORES, &[("svm.name", &exactly(name)), ("type", "aws")]).await?;
        Ok::<_, Failure>(found.pointer("/records/0/uuid").and_then(Value::as_str).map(str::to_owned))
    };
    if let Some(uuid) = of(vserver).await? {
        return Ok(uuid);
    }
    let svm = vserver::find(context, vserver).await?;
    let found = if svm.name == vserver { None } else { of(&svm.name).await? };
    found.ok_or_else(|| {
        Failure::not_found(format!("AWS KMS is not enabled for the SVM {vserver}"))
            .next(format!("enable it: keystead security key-manager external aws enable --vserver {vserver} --region … --key-id … --access-key-id …"))
    })
}

fn password_file(common: &Common) -> (&'static str, Option<&std::path::Path>) {
    ("--password-file", common.password_file.as_deref())
}

/// What is made has nothing to take away.
fn without_nulls(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
        if let Some(own) = members.get_mut("keystead").and_then(Value::as_object_mut) {
            own.retain(|_, value| !value.is_null());
        }
    }
    body
}
