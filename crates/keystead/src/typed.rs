//! Secrets that somebody types, or that stand in a file: never in an argument, which all processes of the machine can read.

use secrecy::{ExposeSecret as _, SecretString};
use std::path::Path;
use zeroize::{Zeroize as _, Zeroizing};

/// The first line of the file, or else what is typed at the terminal; `twice`, so that a new one is as it was meant. `what` is asked for, and `flag` names the file.
///
/// # Errors
/// One line: the file cannot be read, there is no terminal, or the two are not the same.
pub fn secret(file: Option<&Path>, (what, flag): (&str, &str), twice: bool) -> Result<SecretString, String> {
    if let Some(path) = file {
        let mut text = std::fs::read_to_string(path).map_err(|error| format!("{flag} {}: {error}", path.display()))?;
        let first = SecretString::from(text.lines().next().unwrap_or_default());
        text.zeroize();
        return Ok(first);
    }
    let ask = |prompt: &str| {
        let typed = rpassword::prompt_password(prompt).map_err(|error| format!("{what} cannot be asked for at a terminal ({error}); use {flag}"))?;
        Ok::<_, String>(SecretString::from(Zeroizing::new(typed).as_str()))
    };
    let mut prompt = what.to_owned();
    if let Some(first) = prompt.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    let first = ask(&format!("{prompt}: "))?;
    if twice && ask("The same again: ")?.expose_secret() != first.expose_secret() {
        return Err("the two are not the same".to_owned());
    }
    Ok(first)
}
