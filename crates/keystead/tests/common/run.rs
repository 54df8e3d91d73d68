//! The program as a child process that may die at any moment, for the crash tests.

use super::program::{free_port, serve_by};
use super::{PASSWORD, eventually};
use keystead_testkit::clock::FalseClock;
use keystead_testkit::network::Host;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

const KEYSTEAD: &str = env!("CARGO_BIN_EXE_keystead");

/// The program with a listener at its steps; cargo builds it beside the tests.
pub fn stepnode() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let path = deps.parent().unwrap().parent().unwrap().join("examples/stepnode");
    assert!(path.exists(), "{} is missing: `cargo test` without a filter builds it, or `cargo build -p keystead --examples`", path.display());
    path
}

/// The REST API of a node that may die at any moment.
#[derive(Clone)]
pub struct Api {
    pub client: reqwest::Client,
    pub address: SocketAddr,
}

impl Api {
    /// `None`: the node died before it answered.
    pub async fn call(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut request = self.client.request(method.parse().unwrap(), format!("https://{}/api{path}", self.address)).basic_auth("admin", Some(PASSWORD));
        if let Some(body) = body {
            request = request.body(body.to_string());
        }
        let answer = request.send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, serde_json::from_slice(&answer.bytes().await.ok()?).ok()?))
    }

    pub async fn get(&self, path: &str) -> Value {
        self.call("GET", path, None).await.unwrap().1
    }
}

/// A node in a folder: the plain program, or the one with steps.
pub struct Run {
    pub child: std::process::Child,
    pub ekmip: SocketAddr,
    api: Api,
}

impl Run {
    pub async fn start(folder: &Path, program: Option<&Path>, environment: &[(&str, &str)]) -> Self {
        let mut command = Command::new(program.unwrap_or(Path::new(KEYSTEAD)));
        command.envs(environment.iter().copied());
        Self::start_command(folder, command, here(), &[]).await
    }

    /// The plain program, with more flags.
    pub async fn start_with(folder: &Path, flags: &[&str]) -> Self {
        Self::start_of(None, folder, flags).await
    }

    /// The same of another build.
    pub async fn start_of(program: Option<&Path>, folder: &Path, flags: &[&str]) -> Self {
        Self::start_command(folder, Command::new(program.unwrap_or(Path::new(KEYSTEAD))), here(), flags).await
    }

    /// The same on a host of a test's network, where it listens at the ports that it has when nothing is said; with a clock that the test sets.
    pub async fn start_at(host: &Host, clock: Option<&FalseClock>, folder: &Path, flags: &[&str]) -> Self {
        let mut command = host.command();
        command.arg("env").args(clock.map(FalseClock::environment).unwrap_or_default()).arg(KEYSTEAD);
        let address = host.outer_address();
        Self::start_command(folder, command, ((address, 8_443).into(), (address, 5_696).into()), flags).await
    }

    async fn start_command(folder: &Path, mut command: Command, (listen, ekmip): (SocketAddr, SocketAddr), flags: &[&str]) -> Self {
        serve_by(&mut command, folder, listen, ekmip);
        command.args(flags).arg("--config").arg(folder.join("keystead.toml")).env("KEYSTEAD_ADMIN_PASSWORD", PASSWORD);
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
        let mut child = command.stdin(std::process::Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        let client = eventually("the node must serve requests", async || {
            if let Some(status) = child.try_wait().unwrap() {
                panic!("{status}: {}", std::fs::read_to_string(folder.join("log")).unwrap());
            }
            let client = super::client(&std::fs::read(folder.join("data/ca.pem")).ok()?);
            let answer = client.get(format!("https://{listen}/healthz")).send().await.ok()?;
            answer.status().is_success().then_some(client)
        })
        .await;
        Self { child, ekmip, api: Api { client, address: listen } }
    }

    /// Ends it as an operator does.
    pub fn stop(mut self) {
        assert!(Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap().success());
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
    }

    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl std::ops::Deref for Run {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Ports of the loopback interface that are free.
fn here() -> (SocketAddr, SocketAddr) {
    (([127, 0, 0, 1], free_port()).into(), ([127, 0, 0, 1], free_port()).into())
}

pub fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Pauses that differ from run to run; the seed is printed, so that a failure can be looked at again.
pub fn pauses(count: usize) -> Vec<Duration> {
    let seed = std::env::var("KEYSTEAD_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| uuid::Uuid::new_v4().as_u128() as u64);
    println!("KEYSTEAD_CRASH_SEED={seed}");
    let mut state = seed | 1;
    (0..count)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            Duration::from_millis(20 + state % 500)
        })
        .collect()
}
