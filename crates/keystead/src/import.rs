//! `keystead ekmip import`: takes keys in from another KMIP server. Here is what a user sees of it; the work is that of `keystead_import`.

use crate::cli::ImportArguments;
use crate::process;
use keystead_import::report::{Outcome, Report};
use keystead_import::{Options, Select};
use keystead_kmip_client::{Endpoint, Limits};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Some objects were not moved.
const NOT_ALL: u8 = 3;
/// How often it is told how far it is.
const EACH: Duration = Duration::from_secs(1);

/// Runs the import. Exits with 0 where all objects are here, with 3 where some were not moved.
///
/// # Errors
/// One line for the operator: it could not run, or ended before its end.
pub fn run(arguments: &ImportArguments) -> Result<ExitCode, String> {
    process::no_core_dumps()?;
    let options = options(arguments)?;
    let file = arguments.report.as_deref().map(ReportFile::create).transpose()?;
    let (started, mut told) = (Instant::now(), None);
    let report = keystead_import::run(&options, &mut |report| {
        if told.is_none_or(|told: Instant| told.elapsed() >= EACH) {
            told = Some(Instant::now());
            tell(report, started);
        }
    });
    tell(&report, started);
    if let Some(file) = file {
        file.write(&report)?;
    }
    // A reader who has gone away is no reason to say that the import failed.
    let _ = std::io::stdout().write_all(report.summary().as_bytes());
    match &report.error {
        Some(error) => Err(error.escape_debug().to_string()),
        None if report.count(Outcome::NotMoved) > 0 => Ok(ExitCode::from(NOT_ALL)),
        None => Ok(ExitCode::SUCCESS),
    }
}

fn options(arguments: &ImportArguments) -> Result<Options, String> {
    let limits = Limits { time: Duration::from_secs(arguments.timeout), ..Limits::default() };
    let mut source = Endpoint::from_files(&arguments.source, &arguments.source_ca, &arguments.source_cert, &arguments.source_key)?.within(limits);
    if let Some(name) = &arguments.source_server_name {
        source = source.named(name)?;
    }
    let destination = Endpoint::from_files(&arguments.destination, &arguments.destination_ca, &arguments.destination_cert, &arguments.destination_key)?;
    Ok(Options {
        source,
        source_name: arguments.source_name.clone().unwrap_or_else(|| arguments.source.clone()),
        source_version: arguments.source_version,
        destination: destination.within(limits),
        select: Select { names: arguments.name.clone(), group: arguments.group.clone(), object_type: arguments.object_type },
        drop_taken_names: arguments.drop_taken_names,
        dry_run: arguments.dry_run,
        retries: arguments.retries,
        pause,
    })
}

fn tell(report: &Report, started: Instant) {
    if report.found.is_none() {
        return;
    }
    let rate = report.objects.len() as f64 / started.elapsed().as_secs_f64().max(0.001);
    eprintln!("keystead: {}, {rate:.0} a second", report.progress());
}

fn pause(time: Duration) {
    let end = Instant::now() + time;
    while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// The report's file: made at the start, so that a folder that is not there is found out before anything is moved, and put in its place at the end, whole.
struct ReportFile {
    path: PathBuf,
    part: PathBuf,
    file: File,
}

impl ReportFile {
    fn create(path: &Path) -> Result<Self, String> {
        let mut part = path.as_os_str().to_owned();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).map_err(|error| format!("the report cannot be written: {}: {error}", part.display()))?;
        Ok(Self { path: path.to_owned(), part, file })
    }

    fn write(mut self, report: &Report) -> Result<(), String> {
        let written = self.file.write_all(report.to_json().as_bytes()).and_then(|()| self.file.sync_all());
        written
            .and_then(|()| std::fs::rename(&self.part, &self.path))
            .map_err(|error| format!("the report cannot be written: {}: {error}", self.path.display()))
    }
}
