//! Nothing is taken from the process's environment variables.

use crate::kms::{ACCESS_KEY_ID, Kms, REGION, described};
use crate::pki::Ca;
use crate::setup::{ask, config, open};

const MARK: &str = "KEYSTEAD_TEST_CHILD";

/// Runs itself once more, in a process with every variable set that clients of AWS and of HTTP read elsewhere: an environment cannot be changed safely within a process.
#[tokio::test]
async fn variables_of_aws_and_of_proxies_are_ignored() {
    if std::env::var_os(MARK).is_some() {
        return one_good_call().await;
    }
    let folder = tempfile::tempdir().unwrap();
    let profile = folder.path().join("config");
    std::fs::write(&profile, "[default]\nregion = us-east-2\nendpoint_url = http://127.0.0.1:1\nmax_attempts = 1\n").unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "test_surroundings::variables_of_aws_and_of_proxies_are_ignored", "--nocapture"]).env(MARK, "1");
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_KMS"] {
        child.env(name, "http://127.0.0.1:1");
    }
    for (name, value) in [
        ("AWS_REGION", "us-east-2"),
        ("AWS_DEFAULT_REGION", "us-east-2"),
        ("AWS_ACCESS_KEY_ID", "AKIAFROMENVIRONMENT0"),
        ("AWS_SECRET_ACCESS_KEY", "from-the-environment"),
        ("AWS_SESSION_TOKEN", "from-the-environment"),
        ("AWS_PROFILE", "default"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("AWS_RETRY_MODE", "adaptive"),
        ("AWS_EXECUTION_ENV", "from-the-environment"),
        ("AWS_SDK_UA_APP_ID", "from-the-environment"),
        ("AWS_LAMBDA_FUNCTION_NAME", "from-the-environment"),
        ("_X_AMZN_TRACE_ID", "Root=1-from-the-environment"),
    ] {
        child.env(name, value);
    }
    child.env("AWS_CONFIG_FILE", &profile).env("AWS_SHARED_CREDENTIALS_FILE", &profile);
    let output = child.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
}

async fn one_good_call() {
    let ca = Ca::new();
    let kms =
        Kms::start(ca.server(&["kms.test"]), |_, number| if number == 0 { crate::kms::refused(500, "KMSInternalException", "m") } else { described() }).await;
    ask(&open(&ca.pem(), &["kms.test"]), config("kms.test", kms.port())).await.unwrap();
    assert_eq!(kms.count(), 2);
    for seen in kms.seen() {
        assert!(seen.is_signed());
        let authorization = seen.header("authorization").unwrap();
        assert!(authorization.contains(ACCESS_KEY_ID) && authorization.contains(REGION), "{authorization}");
        assert!(!format!("{:?}", seen.headers).contains("from-the-environment"), "{:?}", seen.headers);
    }
}
