//! Names, environments and clients for the tests.

use crate::kms::{ACCESS_KEY_ID, REGION, SECRET};
use async_trait::async_trait;
use keystead_awskms::{
    Client, ClientConfig, Credentials, Egress, Endpoint, Environment, EnvironmentOptions, Error, KeyDescription, Proxy, Resolver, TlsPolicy,
};
use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Knows a few names. A name may stand for other addresses each time; the last answer stays.
#[derive(Default)]
pub struct Names {
    answers: Mutex<HashMap<String, VecDeque<Vec<IpAddr>>>>,
    asked: Mutex<Vec<String>>,
}

impl Names {
    /// `name` is always here.
    pub fn here(names: &[&str]) -> Arc<Self> {
        let all: Vec<(&str, &[&[&str]])> = names.iter().map(|name| (*name, &[&["127.0.0.1"] as &[&str]] as &[&[&str]])).collect();
        Self::of(&all)
    }

    pub fn of(names: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let answer = |addresses: &&[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let answers = names.iter().map(|(name, answers)| ((*name).to_owned(), answers.iter().map(answer).collect())).collect();
        Arc::new(Self { answers: Mutex::new(answers), asked: Mutex::default() })
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        self.asked.lock().unwrap().push(name.to_owned());
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(name).ok_or_else(|| "no such name".to_owned())?;
        if answers.len() > 1 { Ok(answers.pop_front().unwrap()) } else { Ok(answers[0].clone()) }
    }
}

/// A resolver that never answers.
pub struct Deaf;

#[async_trait]
impl Resolver for Deaf {
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, String> {
        std::future::pending().await
    }
}

/// An environment with this CA (of AWS and of proxies), this list and these names.
pub fn environment(ca: &str, allow: &[String], resolver: Arc<dyn Resolver>) -> Environment {
    let egress = Egress::parse(allow).unwrap();
    Environment::new(EnvironmentOptions { extra_ca: Some(ca.to_owned()), egress, requests_per_second: 10_000, resolver }).unwrap()
}

/// An environment that lets everything on the loopback interface through.
pub fn open(ca: &str, names: &[&str]) -> Environment {
    environment(ca, &["127.0.0.0/8".to_owned(), "::/0".to_owned()], Names::here(names))
}

/// A strict client's configuration for this host and port.
pub fn config(host: &str, port: u16) -> ClientConfig {
    ClientConfig {
        endpoint: Endpoint {
            region: REGION.to_owned(),
            service: "KMS".to_owned(),
            default_domain: "amazonaws.com".to_owned(),
            host: Some(host.to_owned()),
            port,
        },
        tls: TlsPolicy::STRICT,
        proxy: None,
        credentials: Credentials::Key { access_key_id: ACCESS_KEY_ID.to_owned(), secret_access_key: SECRET.into() },
        timeout: Duration::from_secs(20),
        ca_certificates: None,
    }
}

/// The same through a proxy.
pub fn through(config: ClientConfig, proxy: Proxy) -> ClientConfig {
    ClientConfig { proxy: Some(proxy), ..config }
}

/// One DescribeKey by a new client.
pub async fn ask(environment: &Environment, config: ClientConfig) -> Result<KeyDescription, Error> {
    describe(&Client::new(environment, config)?).await
}

/// DescribeKey; a call that does not end fails the test.
pub async fn describe(client: &Client) -> Result<KeyDescription, Error> {
    tokio::time::timeout(Duration::from_secs(120), client.describe_key("alias/a")).await.expect("every call ends")
}
