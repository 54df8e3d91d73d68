//! `keystead-conformance`: replays folders of KMIP test cases against a server. Exits with 1 where a case fails, or where there was none.

use clap::Parser;
use keystead_conformance::client::Endpoint;
use keystead_conformance::{Verdict, cases_in, replay_file};
use std::path::PathBuf;
use std::process::ExitCode;

/// Replays KMIP test cases (XML transcripts as OASIS publishes them) against a server over mutual TLS, and compares whole answers.
#[derive(Parser)]
struct Arguments {
    /// Folders of transcripts (.xml).
    #[arg(required = true)]
    folders: Vec<PathBuf>,
    /// The server, host:port.
    #[arg(long, default_value = "127.0.0.1:5696")]
    address: String,
    /// The CA of the server's certificate, PEM.
    #[arg(long)]
    ca: PathBuf,
    /// The client's certificate, PEM.
    #[arg(long)]
    cert: PathBuf,
    /// Its private key, PEM.
    #[arg(long)]
    key: PathBuf,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("keystead-conformance: {error}");
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<bool, String> {
    let endpoint = Endpoint::from_files(&arguments.address, &arguments.ca, &arguments.cert, &arguments.key)?;
    let cases = cases_in(&arguments.folders)?;
    if cases.is_empty() {
        let folders: Vec<String> = arguments.folders.iter().map(|folder| folder.display().to_string()).collect();
        println!("no case: there is no .xml file in {}", folders.join(", "));
        return Ok(false);
    }
    let mut passed = 0;
    for case in &cases {
        let name = case.file_stem().unwrap_or_default().to_string_lossy();
        match replay_file(case, &endpoint) {
            Ok(Verdict::Pass) => {
                passed += 1;
                println!("pass  {name}");
            }
            Ok(Verdict::Fail(difference)) => println!("FAIL  {name}: {difference}"),
            Err(error) => println!("FAIL  {name}: the case cannot be replayed: {error}"),
        }
    }
    println!("passes {passed} of {}", cases.len());
    Ok(passed == cases.len())
}
