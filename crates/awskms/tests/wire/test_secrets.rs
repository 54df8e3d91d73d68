//! No text of this crate holds a secret.

use crate::kms::{Kms, SECRET, refused};
use crate::pki::Ca;
use crate::proxy::{LOGIN, Mode, PASSWORD, Server};
use crate::setup::{config, describe, open, through};
use keystead_awskms::{Client, ClientConfig, Proxy, ProxyKind};

fn assert_clean(text: &str) {
    for secret in [SECRET, PASSWORD, LOGIN, "pr0xy-p4ss", "c3F1aWQgdXNlciU0MTpwcjB4eS1wNHNz", "AWS4-HMAC-SHA256"] {
        assert!(!text.contains(secret), "{text}");
    }
}

#[tokio::test]
async fn errors_and_clients_show_no_secret_on_any_hop() {
    let ca = Ca::new();
    let environment = open(&ca.pem(), &["kms.test", "proxy.test"]);
    let aws = Kms::answering(ca.server(&["kms.test"]), refused(400, "AccessDeniedException", "m")).await;
    let wrong = Kms::answering(ca.server(&["wrong.test"]), refused(400, "AccessDeniedException", "m")).await;
    let mut ways: Vec<(u16, Proxy)> = Vec::new();
    for (kms, mode) in [(&aws, Mode::Open), (&wrong, Mode::Open), (&aws, Mode::Refuse(407)), (&aws, Mode::Refuse(401)), (&aws, Mode::Drop)] {
        let proxy = Server::start(None, mode, kms.address).await;
        ways.push((kms.port(), proxy.login(ProxyKind::Http, "proxy.test")));
        ways.push((kms.port(), proxy.login(ProxyKind::Https, "proxy.test")));
        ways.push((kms.port(), proxy.login(ProxyKind::Http, "nowhere.test")));
    }
    for (port, proxy) in ways {
        let client =
            Client::new(&environment, through(ClientConfig { timeout: std::time::Duration::from_secs(1), ..config("kms.test", port) }, proxy)).unwrap();
        assert_clean(&format!("{client:?} {client:#?}"));
        let error = describe(&client).await.unwrap_err();
        assert_clean(&format!("{error} {error:?} {error:#?}"));
        let mut cause = std::error::Error::source(&error);
        while let Some(source) = cause {
            assert_clean(&format!("{source} {source:?}"));
            cause = source.source();
        }
    }
    let proxy = Proxy { kind: ProxyKind::Http, host: format!("u:{PASSWORD}@proxy.test"), port: 1, username: None, password: None };
    let error = Client::new(&environment, through(config("kms.test", 1), proxy)).unwrap_err();
    assert_clean(&format!("{error} {error:?}"));
}
