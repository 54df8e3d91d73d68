//! The process as such: no core dumps, since they would hold keys; as many open files as it may have.

use tokio::signal::unix::{SignalKind, signal};

/// Turns core dumps off, for this process and what it starts.
///
/// # Errors
/// The system refuses.
pub fn no_core_dumps() -> Result<(), String> {
    no_core_files()?;
    // Also keeps other processes of the same user from reading our memory (prctl(2), PR_SET_DUMPABLE).
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
        .map_err(|error| format!("the process cannot be made undumpable: {error}"))
}

/// Turns core dumps off, and leaves the process one that its user can look into: what is not dumpable cannot read what a shell gives it under `/dev/fd` either.
///
/// # Errors
/// The system refuses.
pub fn no_core_files() -> Result<(), String> {
    rustix::process::setrlimit(rustix::process::Resource::Core, rustix::process::Rlimit { current: Some(0), maximum: Some(0) })
        .map_err(|error| format!("core dumps cannot be switched off: {error}"))
}

/// Lets the process have as many files and connections open as the system allows it: by default that is 1,024, fewer than one server of storage may have clients. Answers how many.
pub fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let raised = rustix::process::Rlimit { current: limit.maximum, maximum: limit.maximum };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Nofile, raised);
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Has a write beyond the limit on the size of files fail, as one to a full disk does: by default it ends the process. Only within a runtime.
///
/// # Errors
/// The system refuses.
pub fn no_end_by_file_size() -> Result<(), String> {
    let number = rustix::process::Signal::XFSZ.as_raw();
    // Whoever listens, the signal does nothing else any more, also when nobody listens later.
    signal(SignalKind::from_raw(number)).map(drop).map_err(|error| format!("SIGXFSZ cannot be caught: {error}"))
}

/// The machine's name, for a node that has none of its own.
pub fn machine_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "node1".to_owned() } else { name }
}

/// The variables of the environment that are settings. Others may hold anything, but these must be text.
///
/// # Errors
/// One line.
pub fn variables() -> Result<Vec<(String, String)>, String> {
    let ours = std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("KEYSTEAD_"));
    ours.map(|(name, value)| match (name.into_string(), value.into_string()) {
        (Ok(name), Ok(value)) => Ok((name, value)),
        (Ok(name), Err(_)) => Err(format!("the variable {name} is no text")),
        (Err(name), _) => Err(format!("the variable {name:?} has no name that is text")),
    })
    .collect()
}
