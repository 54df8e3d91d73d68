//! The control interface under `/_control/`: JSON over the same listener, without a login. Loopback and tests only.
//!
//! | request | body, answer |
//! |---|---|
//! | `POST keys` | a [`NewKey`]; answers the key |
//! | `GET keys/ID` | the key |
//! | `POST keys/ID/ACTION` | enable, disable, schedule_deletion, pending_import, unavailable, delete, rotate, deny (a [`Denial`]), restore_access, alias (`{"alias"}`) |
//! | `POST access_keys` | `{"access_key_id", "secret_access_key", "session_token"?, "user"?}` |
//! | `POST access_keys/ID/ACTION` | activate, deactivate (`{"code"?}`: the error its calls get), delete |
//! | `POST faults`, `GET`, `DELETE` | a [`FaultRule`] or a list of them |
//! | `POST gate` | `{"operation"?, "times"?, "after"?}`: holds the next call (`times`, default 1), before or after it is executed |
//! | `POST release` | opens all gates; answers `{"released"}` |
//! | `GET held?count=N&timeout_ms=T` | waits until N calls are held; answers `{"held", "reached"}` |
//! | `PUT clock` | `{"skew_seconds"}`: AWS's clock, for all calls |
//! | `GET calls`, `DELETE` | the record of calls, in order |
//! | `GET stats` | `{"connections", "handshake_failures", "calls"}` since the start |
//!
//! A wrong request answers 400 or 404 with `{"error"}`.

use std::time::Duration;

use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::account::{Denial, KeyState, NewKey};
use crate::fault::{Fault, FaultRule};
use crate::shared::{HOLD_LIMIT, Shared};

type Answer = Result<Value, String>;

/// The code that AWS gives to calls of an inactive access key.
pub(crate) const INACTIVE: &str = "UnrecognizedClientException";

/// Handles one control request; `path` is without `/_control/`.
pub(crate) async fn handle(shared: &Shared, method: &Method, path: &str, query: &str, body: &[u8]) -> (u16, Value) {
    let parts: Vec<&str> = path.split('/').collect();
    let answer = match (method.as_str(), parts.as_slice()) {
        ("GET", ["held"]) => held(shared, query).await,
        ("POST", ["keys"]) => read(body).and_then(|new: NewKey| to_json(shared.state().account.create_key(new, Timestamp::now())?)),
        ("GET", ["keys", id]) => shared.state().account.key_info(id).and_then(to_json),
        ("POST", ["keys", id, action]) => key_action(shared, id, action, body),
        ("POST", ["access_keys"]) => read(body).map(|new: NewAccessKey| {
            let user = new.user.as_deref().unwrap_or("keystead");
            shared.state().account.add_access_key(&new.access_key_id, &new.secret_access_key, new.session_token, user);
            json!({})
        }),
        ("POST", ["access_keys", id, action]) => access_key_action(shared, id, action, body),
        ("POST", ["faults"]) => read(body).map(|rules: OneOrMany| {
            let rules = match rules {
                OneOrMany::Many(rules) => rules,
                OneOrMany::One(rule) => vec![rule],
            };
            rules.into_iter().for_each(|rule| shared.state().rules.add(rule));
            json!({})
        }),
        ("GET", ["faults"]) => to_json(shared.state().rules.active()),
        ("DELETE", ["faults"]) => {
            shared.state().rules.clear();
            Ok(json!({}))
        }
        ("POST", ["gate"]) => read(body).map(|gate: Gate| {
            shared.state().rules.add(gate.into_rule());
            json!({})
        }),
        ("POST", ["release"]) => Ok(json!({ "released": shared.release() })),
        ("PUT", ["clock"]) => read(body).map(|clock: Clock| {
            shared.state().skew = SignedDuration::from_secs(clock.skew_seconds);
            json!({})
        }),
        ("GET", ["calls"]) => to_json(&shared.state().calls),
        ("DELETE", ["calls"]) => {
            shared.state().calls.clear();
            Ok(json!({}))
        }
        ("GET", ["stats"]) => {
            let state = shared.state();
            Ok(json!({ "connections": state.connections, "handshake_failures": state.handshake_failures, "calls": state.call_count }))
        }
        _ => return (404, json!({ "error": format!("no such control request: {method} {path}") })),
    };
    match answer {
        Ok(value) => (200, value),
        Err(message) => (400, json!({ "error": message })),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewAccessKey {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    user: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    Many(Vec<FaultRule>),
    One(FaultRule),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clock {
    skew_seconds: i64,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Alias {
    alias: String,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Deactivate {
    code: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Gate {
    operation: Option<String>,
    times: Option<u64>,
    after: bool,
}

impl Gate {
    fn into_rule(self) -> FaultRule {
        let fault = if self.after { Fault::HoldAfter } else { Fault::Hold };
        FaultRule { operation: self.operation, times: Some(self.times.unwrap_or(1)), ..FaultRule::always(fault) }
    }
}

fn key_action(shared: &Shared, id: &str, action: &str, body: &[u8]) -> Answer {
    let account = &mut shared.state().account;
    match action {
        "enable" => account.set_state(id, KeyState::Enabled)?,
        "disable" => account.set_state(id, KeyState::Disabled)?,
        "schedule_deletion" => account.set_state(id, KeyState::PendingDeletion)?,
        "pending_import" => account.set_state(id, KeyState::PendingImport)?,
        "unavailable" => account.set_state(id, KeyState::Unavailable)?,
        "rotate" => account.rotate(id)?,
        "deny" => account.deny(id, read::<Denial>(body)?)?,
        "restore_access" => account.restore_access(id)?,
        "alias" => account.set_alias(&read::<Alias>(body)?.alias, id)?,
        "delete" => return account.delete_key(id).map(|()| json!({})),
        _ => return Err(format!("no such action on a key: {action}")),
    }
    to_json(account.key_info(id)?)
}

fn access_key_action(shared: &Shared, id: &str, action: &str, body: &[u8]) -> Answer {
    let account = &mut shared.state().account;
    match action {
        "activate" => account.set_inactive(id, None),
        "deactivate" => account.set_inactive(id, Some(read::<Deactivate>(body)?.code.unwrap_or_else(|| INACTIVE.into()))),
        "delete" => account.delete_access_key(id),
        _ => Err(format!("no such action on an access key: {action}")),
    }
    .map(|()| json!({}))
}

async fn held(shared: &Shared, query: &str) -> Answer {
    let number = |name: &str, default: u64| match query.split('&').find_map(|p| p.strip_prefix(name)?.strip_prefix('=')) {
        None => Ok(default),
        Some(text) => text.parse::<u64>().map_err(|_| format!("{name} is not a number")),
    };
    let count = usize::try_from(number("count", 0)?).map_err(|e| e.to_string())?;
    let limit = Duration::from_millis(number("timeout_ms", 10_000)?).min(HOLD_LIMIT);
    let held = shared.wait_held(count, limit).await;
    Ok(json!({ "held": held, "reached": held >= count }))
}

/// Reads a body; an empty one counts as `{}`.
fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|e| e.to_string())
}

fn to_json(value: impl serde::Serialize) -> Answer {
    serde_json::to_value(value).map_err(|e| e.to_string())
}
