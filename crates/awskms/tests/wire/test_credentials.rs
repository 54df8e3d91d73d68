//! Credentials of the node's own: each source over the wire, renewed in time, and never shown.
//!
//! The sources read the process's variables, which cannot be changed safely within a process. So each test runs itself once more, in a child with the variables set: the stand-ins for the metadata
//! service and for STS live in the parent, AWS KMS and the client in the child.

use crate::kms::{ARN, Answer, Kms, Seen, described, plain, refused};
use crate::pki::Ca;
use crate::setup::{config, open};
use keystead_awskms::{Class, Client, ClientConfig, Credentials, CredentialsSource, EncryptionContext, Environment, Error, Hop};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

const MARK: &str = "KEYSTEAD_TEST_CHILD";
/// What every credential of these tests has in its secret.
const SECRET: &str = "t0p-s3cret-of-the-n0de";
const TOKEN: &str = "t0ken-of-the-n0de";

fn is_child() -> bool {
    std::env::var_os(MARK).is_some()
}

/// Runs a test of this file again in a child that has these variables, and none other of AWS.
async fn in_child(test: &str, variables: &[(&str, String)]) {
    let mut child = tokio::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", &format!("test_credentials::{test}"), "--nocapture"]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_") || name.to_ascii_lowercase().ends_with("_proxy")) {
        child.env_remove(name);
    }
    child.env(MARK, "1").envs(variables.iter().map(|(name, value)| (name, value)));
    let output = child.output().await.unwrap();
    let text = format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
    assert!(!text.contains(SECRET) && !text.contains(TOKEN), "{text}");
}

/// Variables for files that hold this, and for no metadata service.
fn files(folder: &Path, text: &str) -> Vec<(&'static str, String)> {
    let path = folder.join("config");
    std::fs::write(&path, text).unwrap();
    let path = path.to_str().unwrap().to_owned();
    vec![
        ("AWS_CONFIG_FILE", path),
        ("AWS_SHARED_CREDENTIALS_FILE", folder.join("none").to_str().unwrap().to_owned()),
        ("AWS_REGION", "eu-west-1".to_owned()),
        ("AWS_EC2_METADATA_DISABLED", "true".to_owned()),
    ]
}

fn source(text: &str) -> Credentials {
    Credentials::Source { source: text.parse::<CredentialsSource>().unwrap(), key_arn: ARN.to_owned() }
}

/// A client with a source, and AWS KMS, which answers as the test says.
async fn client(text: &str, answer: impl Fn(&Seen, usize) -> Answer + Send + Sync + 'static) -> (Client, Kms, Environment) {
    let ca = Ca::new();
    let kms = Kms::start(ca.server(&["kms.test"]), answer).await;
    let environment = open(&ca.pem(), &["kms.test"]);
    let client = client_of(&environment, &kms, text);
    (client, kms, environment)
}

fn client_of(environment: &Environment, kms: &Kms, text: &str) -> Client {
    Client::new(environment, ClientConfig { credentials: source(text), ..config("kms.test", kms.port()) }).unwrap()
}

/// One good call of this source; the access key id and the session token that it was signed with.
async fn signed_with(text: &str) -> (String, Option<String>) {
    let (client, kms, _) = client(text, |_, _| described()).await;
    client.describe_key(ARN).await.unwrap();
    let seen = &kms.seen()[0];
    assert!(seen.is_signed_by(SECRET));
    let id = seen.header("authorization").unwrap().split_once("Credential=").unwrap().1.split('/').next().unwrap().to_owned();
    let token = seen.header("x-amz-security-token").map(str::to_owned);
    let shown = format!("{client:?} {client:#?}");
    assert!(!shown.contains(SECRET) && !shown.contains(TOKEN) && !shown.contains(&id), "{shown}");
    (id, token)
}

/// One failed call of this source; AWS KMS hears nothing of it.
async fn fails(text: &str) -> Error {
    let (client, kms, _) = client(text, |_, _| described()).await;
    let error = client.describe_key(ARN).await.unwrap_err();
    assert_eq!((error.hop(), kms.connections.load(Ordering::SeqCst)), (Hop::Credentials, 0), "{error}");
    assert!(!error.evidence() && !error.came_from_aws());
    let shown = format!("{error} {error:?}");
    assert!(shown.contains(&format!("credentials source {text}")) && !shown.contains(SECRET) && !shown.contains(TOKEN), "{shown}");
    error
}

/// The metadata service (IMDSv2): `credentials` gets the number of the request, from 0.
async fn imds(credentials: impl Fn(usize) -> Answer + Send + Sync + 'static) -> (Kms, Arc<AtomicUsize>) {
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    let service = Kms::in_the_clear(move |seen, _| match (seen.method.as_str(), seen.path.as_str()) {
        ("PUT", "/latest/api/token") => {
            let headers = vec![("x-aws-ec2-metadata-token-ttl-seconds", "21600".to_owned())];
            Answer::Full { status: 200, headers, body: b"imds-session".to_vec() }
        }
        _ if seen.header("x-aws-ec2-metadata-token") != Some("imds-session") => plain(401, ""),
        ("GET", "/latest/meta-data/iam/security-credentials/") => plain(200, "node-role"),
        ("GET", "/latest/meta-data/iam/security-credentials/node-role") => credentials(counted.fetch_add(1, Ordering::SeqCst)),
        _ => plain(404, ""),
    })
    .await;
    (service, count)
}

fn instance(service: &Kms) -> Vec<(&'static str, String)> {
    let none = "/nonexistent/aws".to_owned();
    let address = format!("http://127.0.0.1:{}", service.port());
    vec![("AWS_EC2_METADATA_SERVICE_ENDPOINT", address), ("AWS_CONFIG_FILE", none.clone()), ("AWS_SHARED_CREDENTIALS_FILE", none)]
}

/// What the metadata service answers, for `seconds` from now.
fn role(number: usize, seconds: i64) -> Answer {
    let end = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(seconds);
    let body = serde_json::json!({
        "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z", "Type": "AWS-HMAC", "AccessKeyId": format!("ASIAROLE{number:08}"), "SecretAccessKey": SECRET,
        "Token": format!("{TOKEN} {}", end.as_second()), "Expiration": end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    });
    plain(200, &body.to_string())
}

/// STS: the answers of both ways to a role, or a refusal.
async fn sts(refuse: bool) -> Kms {
    Kms::in_the_clear(move |seen, _| {
        let body = String::from_utf8_lossy(&seen.body).into_owned();
        let action = ["AssumeRoleWithWebIdentity", "AssumeRole"].into_iter().find(|action| body.contains(&format!("Action={action}&"))).unwrap();
        if refuse {
            let error = "<Type>Sender</Type><Code>AccessDenied</Code><Message>Not authorized to perform sts:AssumeRoleWithWebIdentity</Message>";
            let text = format!("<ErrorResponse><Error>{error}</Error><RequestId>r-1</RequestId></ErrorResponse>");
            return Answer::Full { status: 403, headers: vec![("content-type", "text/xml".into())], body: text.into_bytes() };
        }
        assert!(body.contains("RoleArn=arn%3Aaws%3Aiam%3A%3A111122223333%3Arole%2Fkeystead"), "{body}");
        let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let id = if action == "AssumeRole" { "ASIAASSUMEDROLE0" } else { "ASIAWEBIDENTITY0" };
        let credentials = format!(
            "<Credentials><AccessKeyId>{id}</AccessKeyId><SecretAccessKey>{SECRET}</SecretAccessKey><SessionToken>{TOKEN}</SessionToken><Expiration>{end}</Expiration></Credentials>"
        );
        let user = "<AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>arn:aws:sts::111122223333:assumed-role/keystead/x</Arn></AssumedRoleUser>";
        let text = format!("<{action}Response><{action}Result>{credentials}{user}</{action}Result></{action}Response>");
        Answer::Full { status: 200, headers: vec![("content-type", "text/xml".into())], body: text.into_bytes() }
    })
    .await
}

fn web_identity(folder: &Path, sts_port: u16) -> Vec<(&'static str, String)> {
    let token = folder.join("token");
    std::fs::write(&token, "header.payload.signature").unwrap();
    let mut variables = files(folder, "");
    variables.extend([
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token.to_str().unwrap().to_owned()),
        ("AWS_ROLE_ARN", "arn:aws:iam::111122223333:role/keystead".to_owned()),
        ("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{sts_port}")),
    ]);
    variables
}

/// A command that prints credentials, as a profile names it.
fn process(id: &str) -> String {
    let end = (jiff::Timestamp::now() + jiff::SignedDuration::from_hours(1)).to_string();
    let json = serde_json::json!({ "Version": 1, "AccessKeyId": id, "SecretAccessKey": SECRET, "SessionToken": TOKEN, "Expiration": end });
    format!("credential_process = echo '{json}'\n")
}

#[tokio::test]
async fn instance_role() {
    if is_child() {
        let (id, token) = signed_with("instance_role").await;
        assert_eq!(id, "ASIAROLE00000000");
        return assert!(token.unwrap().starts_with(TOKEN));
    }
    let (service, count) = imds(|number| role(number, 3_600)).await;
    in_child("instance_role", &instance(&service)).await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn web_identity_role() {
    if is_child() {
        return assert_eq!(signed_with("web_identity").await, ("ASIAWEBIDENTITY0".into(), Some(TOKEN.into())));
    }
    let folder = tempfile::tempdir().unwrap();
    let sts = sts(false).await;
    in_child("web_identity_role", &web_identity(folder.path(), sts.port())).await;
    assert_eq!(sts.count(), 1);
    assert!(String::from_utf8_lossy(&sts.seen()[0].body).contains("WebIdentityToken=header.payload.signature"));
}

#[tokio::test]
async fn process_of_the_nodes_profile() {
    if is_child() {
        return assert_eq!(signed_with("process").await, ("ASIAPROCESS00000".into(), Some(TOKEN.into())));
    }
    let folder = tempfile::tempdir().unwrap();
    in_child("process_of_the_nodes_profile", &files(folder.path(), &format!("[default]\n{}", process("ASIAPROCESS00000")))).await;
}

#[tokio::test]
async fn profiles_by_name_and_roles_that_they_assume() {
    if is_child() {
        assert_eq!(signed_with("profile:keys").await, ("AKIAPROFILE00000".into(), None));
        assert_eq!(signed_with("profile:role").await, ("ASIAASSUMEDROLE0".into(), Some(TOKEN.into())));
        let error = fails("profile:nobody").await;
        assert_eq!((error.class(), error.is_credentials()), (Class::Misconfigured, true), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let sts = sts(false).await;
    let text = format!(
        "[profile keys]\naws_access_key_id = AKIAPROFILE00000\naws_secret_access_key = {SECRET}\n[profile role]\nrole_arn = arn:aws:iam::111122223333:role/keystead\nsource_profile = keys\n"
    );
    let mut variables = files(folder.path(), &text);
    variables.push(("AWS_ENDPOINT_URL_STS", format!("http://127.0.0.1:{}", sts.port())));
    in_child("profiles_by_name_and_roles_that_they_assume", &variables).await;
    assert!(sts.seen()[0].header("authorization").unwrap().contains("AKIAPROFILE00000"));
}

#[tokio::test]
async fn the_chain_takes_the_first_that_has_some() {
    if is_child() {
        let (id, _) = signed_with("chain").await;
        return assert_eq!(Some(id), std::env::var("EXPECTED").ok());
    }
    let test = "the_chain_takes_the_first_that_has_some";
    let (service, _) = imds(|number| role(number, 3_600)).await;
    let mut variables = instance(&service);
    variables.push(("EXPECTED", "ASIAROLE00000000".to_owned()));
    in_child(test, &variables).await;
    variables.pop();
    variables.extend([
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT0".to_owned()),
        ("AWS_SECRET_ACCESS_KEY", SECRET.to_owned()),
        ("EXPECTED", "AKIAENVIRONMENT0".to_owned()),
    ]);
    in_child(test, &variables).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_before_the_end_without_a_failed_call() {
    if is_child() {
        // AWS refuses whatever has ended; the token says when that is.
        let now = || jiff::Timestamp::now().as_second();
        let ended = move |seen: &Seen| seen.header("x-amz-security-token").unwrap().rsplit(' ').next().unwrap().parse::<i64>().unwrap() <= now();
        let refusals = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&refusals);
        let answer = move |seen: &Seen, _| {
            if ended(seen) {
                counted.fetch_add(1, Ordering::SeqCst);
                refused(400, "ExpiredTokenException", "it has ended")
            } else {
                described()
            }
        };
        let (client, kms, environment) = client("instance_role", answer).await;
        let others: Vec<Client> = (0..50).map(|_| client_of(&environment, &kms, "instance_role")).collect();
        let until = tokio::time::Instant::now() + Duration::from_secs(10);
        let mut calls = 0;
        while tokio::time::Instant::now() < until {
            for client in others.iter().chain([&client]) {
                client.describe_key(ARN).await.unwrap();
                calls += 1;
            }
        }
        let refused = refusals.load(Ordering::SeqCst);
        return assert!(kms.count() >= calls && refused == 0, "{refused} of {calls}");
    }
    let (service, count) = imds(|number| role(number, 6)).await;
    in_child("renewed_before_the_end_without_a_failed_call", &instance(&service)).await;
    let count = count.load(Ordering::SeqCst);
    assert!((2..=12).contains(&count), "51 clients share one source, asked {count} times in 10 s");
}

#[tokio::test]
async fn what_aws_has_ended_early_is_renewed_at_once() {
    if is_child() {
        let first = |seen: &Seen| seen.header("authorization").unwrap().contains("ASIAROLE00000000");
        for code in ["ExpiredTokenException", "UnrecognizedClientException"] {
            let answer = move |seen: &Seen, _| if first(seen) { refused(400, code, "m") } else { described() };
            let (client, kms, _) = client("instance_role", answer).await;
            client.describe_key(ARN).await.unwrap();
            assert_eq!(kms.count(), 2);
        }
        // Where the source has no others, AWS's word counts, and it was asked once more at the most.
        let (client, kms, _) = client("profile:keys", |_, _| refused(400, "UnrecognizedClientException", "m")).await;
        let error = client.describe_key(ARN).await.unwrap_err();
        assert_eq!((error.class(), error.evidence(), kms.count()), (Class::Revoked, true, 1), "{error}");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (service, _) = imds(|number| role(number % 2, 3_600)).await;
    let mut variables = files(folder.path(), &format!("[profile keys]\naws_access_key_id = AKIAPROFILE00000\naws_secret_access_key = {SECRET}\n"));
    variables.retain(|(name, _)| *name != "AWS_EC2_METADATA_DISABLED");
    variables.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{}", service.port())));
    in_child("what_aws_has_ended_early_is_renewed_at_once", &variables).await;
}

/// A refusal by AWS KMS of credentials that cannot be renewed may be about what was replaced long ago: no evidence.
#[tokio::test]
async fn a_refusal_without_a_source_to_ask_is_no_evidence() {
    if is_child() {
        let (client, _, _) = client("instance_role", |_, _| refused(400, "UnrecognizedClientException", "m")).await;
        let error = client.describe_key(ARN).await.unwrap_err();
        return assert_eq!((error.class(), error.hop(), error.evidence()), (Class::Transient, Hop::Credentials, false), "{error}");
    }
    let (service, _) = imds(|number| if number == 0 { role(0, 3_600) } else { plain(503, "") }).await;
    in_child("a_refusal_without_a_source_to_ask_is_no_evidence", &instance(&service)).await;
}

#[tokio::test]
async fn a_source_that_is_down_is_an_outage() {
    if is_child() {
        for source in std::env::var("SOURCES").unwrap().split(';') {
            let start = std::time::Instant::now();
            let error = fails(source).await;
            assert_eq!((error.class(), error.is_credentials()), (Class::Unreachable, false), "{error}");
            assert!(error.to_string().contains("127.0.0.1:"), "{error}");
            assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        }
        return;
    }
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let folder = tempfile::tempdir().unwrap();
    let mut variables = web_identity(folder.path(), closed);
    variables.retain(|(name, _)| *name != "AWS_EC2_METADATA_DISABLED");
    variables.push(("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://127.0.0.1:{closed}")));
    variables.push(("SOURCES", "instance_role;chain;web_identity".to_owned()));
    in_child("a_source_that_is_down_is_an_outage", &variables).await;
    // One that accepts and stays silent.
    let silent = Kms::in_the_clear(|_, _| Answer::Silence).await;
    let mut variables = instance(&silent);
    variables.push(("SOURCES", "instance_role".to_owned()));
    in_child("a_source_that_is_down_is_an_outage", &variables).await;
}

#[tokio::test]
async fn what_is_not_set_up_or_refused_is_a_mistake() {
    if is_child() {
        let list = std::env::var("SOURCES").unwrap();
        for entry in list.split(';') {
            let (source, word) = entry.split_once('=').unwrap();
            let error = fails(source).await;
            assert_eq!((error.class(), error.is_credentials()), (Class::Misconfigured, true), "{error}");
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
        return;
    }
    let test = "what_is_not_set_up_or_refused_is_a_mistake";
    let folder = tempfile::tempdir().unwrap();
    let sts = sts(true).await;
    let text = format!(
        "[default]\naws_access_key_id = AKIAPROFILE00000\naws_secret_access_key = {SECRET}\n[profile broken]\ncredential_process = sh -c 'echo {SECRET} >&2; exit 3'\n"
    );
    let mut variables = files(folder.path(), &text);
    variables.push(("SOURCES", "web_identity=AWS_WEB_IDENTITY_TOKEN_FILE;process=credential_process;profile:broken=3;instance_role=disabled".to_owned()));
    in_child(test, &variables).await;
    // AWS denies the role: the node's matter, and no word about the customer key.
    let mut variables = web_identity(folder.path(), sts.port());
    variables.push(("SOURCES", "web_identity=AccessDenied".to_owned()));
    in_child(test, &variables).await;
    let (service, _) = imds(|_| plain(404, "")).await;
    let mut variables = instance(&service);
    variables.push(("SOURCES", "instance_role=instance profile".to_owned()));
    in_child(test, &variables).await;
}

#[tokio::test]
async fn a_client_is_bound_to_its_key() {
    if is_child() {
        let (client, kms, _) = client("profile:keys", |_, _| described()).await;
        let context = EncryptionContext::parse("").unwrap();
        let other = "arn:aws:kms:eu-west-1:111122223333:key/00000000-12ab-34cd-56ef-1234567890ab";
        for key in [other, "alias/a", "1234abcd-12ab-34cd-56ef-1234567890ab"] {
            for error in [
                client.describe_key(key).await.unwrap_err(),
                client.encrypt(key, b"x", &context).await.unwrap_err(),
                client.decrypt(key, b"x", &context).await.err().unwrap(),
            ] {
                assert_eq!((error.class(), error.hop()), (Class::Misconfigured, Hop::Settings), "{error}");
            }
        }
        return assert_eq!(kms.connections.load(Ordering::SeqCst), 0);
    }
    let folder = tempfile::tempdir().unwrap();
    let text = format!("[profile keys]\naws_access_key_id = AKIAPROFILE00000\naws_secret_access_key = {SECRET}\n");
    in_child("a_client_is_bound_to_its_key", &files(folder.path(), &text)).await;
}

/// A poll ends within its time, whatever the source does; and what the source answers later is there for the next one.
#[tokio::test]
async fn a_slow_source_holds_nobody_up_and_comes_to_its_end() {
    if is_child() {
        let (client, kms, _) = client("process", |_, _| described()).await;
        let start = std::time::Instant::now();
        client.turn(Duration::from_secs(1)).await.unwrap();
        let error = client.within(Duration::from_millis(500)).describe_key(ARN).await.unwrap_err();
        assert_eq!((error.hop(), error.class()), (Hop::Credentials, Class::Unreachable), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        client.describe_key(ARN).await.unwrap();
        assert_eq!(kms.count(), 1);
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let command = process("ASIAPROCESS00000").replace("= echo", &format!("= echo run >> {}; sleep 3; echo", runs.display()));
    in_child("a_slow_source_holds_nobody_up_and_comes_to_its_end", &files(folder.path(), &format!("[default]\n{command}"))).await;
    assert_eq!(std::fs::read_to_string(runs).unwrap(), "run\n");
}

/// Without a look at the process's proxy variables: what answers here is near.
#[tokio::test]
async fn a_source_that_recovers_is_used_again() {
    if is_child() {
        let (client, _, _) = client("instance_role", |_, _| described()).await;
        assert_eq!(client.describe_key(ARN).await.unwrap_err().hop(), Hop::Credentials);
        client.describe_key(ARN).await.unwrap();
        return;
    }
    let down = Arc::new(AtomicBool::new(true));
    let (service, _) = imds(move |number| if down.swap(false, Ordering::SeqCst) { plain(400, "") } else { role(number, 3_600) }).await;
    let mut variables = instance(&service);
    variables.push(("HTTP_PROXY", "http://127.0.0.1:1".to_owned()));
    in_child("a_source_that_recovers_is_used_again", &variables).await;
}
