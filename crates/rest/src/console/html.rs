//! What pages are made of: the frame around each, tables, states, times. Every text goes through `maud`, which escapes it.

use super::assets::{ICON, SCRIPT, STYLE};
use super::pages::Section;
use super::visit::Visit;
use crate::request::Answer;
use http::StatusCode;
use jiff::Timestamp;
use keystead_manager::Error;
use keystead_manager::model::Principal;
use maud::{DOCTYPE, Markup, html};

/// How good a state is. It picks the colour and the shape of the sign beside the word, which alone would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Somebody should look.
    Warn,
    /// Keys are refused, or something has failed.
    Bad,
    /// Something is under way.
    Busy,
    /// Nothing is to be said.
    Plain,
}

impl Tone {
    /// That of a word of the API: a state of an SVM, a job, a node, a certificate, or a record of the audit log.
    pub fn of(word: &str) -> Self {
        match word {
            "available" | "onboard" | "success" | "up" | "valid" | "active" | "passed" => Self::Good,
            "degraded" | "revoking" | "expiring" | "paused" => Self::Warn,
            "blocked" | "unavailable" | "failure" | "down" | "expired" | "revoked" | "error" | "failed" | "emergency" | "alert" => Self::Bad,
            "initializing" | "disabling" | "queued" | "running" | "pending" | "switching" | "mixed" | "svm_kek_rekey" => Self::Busy,
            _ => Self::Plain,
        }
    }

    const fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Warn => "warn",
            Self::Bad => "bad",
            Self::Busy => "busy",
            Self::Plain => "plain",
        }
    }

    /// The sign: each tone has a shape of its own.
    fn sign(self) -> Markup {
        let path = match self {
            Self::Good => "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1Zm3.2 4.2L7 9.4 4.9 7.3 3.7 8.5 7 11.8l5.4-5.4Z",
            Self::Warn => "M8 1.2 15.4 14.5H.6Zm-.8 4.6v4.4h1.6V5.8Zm0 5.5v1.6h1.6v-1.6Z",
            Self::Bad => "M5 1h6l4 4v6l-4 4H5l-4-4V5Zm.3 3.2L4.2 5.3 6.9 8l-2.7 2.7 1.1 1.1L8 9.1l2.7 2.7 1.1-1.1L9.1 8l2.7-2.7-1.1-1.1L8 6.9Z",
            Self::Busy => "M8 1a7 7 0 1 1 0 14A7 7 0 0 1 8 1Zm0 1.8a5.2 5.2 0 1 0 0 10.4A5.2 5.2 0 0 0 8 2.8Zm.8 1.4v3.5l2.4 1.4-.8 1.4L7.2 8.6V4.2Z",
            Self::Plain => "M2 7h12v2H2Z",
        };
        html! { svg.sign viewBox="0 0 16 16" aria-hidden="true" focusable="false" { path fill-rule="evenodd" d=(path) {} } }
    }
}

/// A state: a sign and a word.
pub fn state(word: &str, tone: Tone) -> Markup {
    html! { span class={ "state " (tone.class()) } { (tone.sign()) (word.replace('_', " ")) } }
}

/// A state whose word says how good it is.
pub fn word(word: &str) -> Markup {
    state(word, Tone::of(word))
}

/// The frame of a page. `refresh`: after how many seconds its live parts are looked at again.
pub fn layout(visit: &Visit<'_>, title: &str, refresh: Option<u32>, content: &Markup) -> Markup {
    let here = Section::of(&visit.address);
    frame(
        title,
        &html! {
            nav aria-label="Console" {
                ul {
                    @for section in Section::ALL {
                        li { a href=(section.path()) aria-current=[(here == Some(section)).then_some("page")] { (section.name()) } }
                    }
                }
            }
            div.who {
                span { (visit.who.name) " " span.role { (visit.who.role.name().text()) } }
                a href="/console/password" { "Password" }
                form method="post" action="/console/logout" { (visit.token()) button.link type="submit" { "Log out" } }
            }
        },
        &html! {
            main id="main" tabindex="-1" data-refresh=[refresh] { (content) }
            // What has changed is told here, by the script.
            p.unseen id="news" role="status" aria-live="polite" {}
            p.offline id="offline" role="alert" hidden {}
            @if refresh.is_some() {
                footer { p.small id="updated" data-live { "As of " (clock(visit.now())) " on this node" } }
            }
        },
    )
}

/// A page for somebody who has not logged in.
pub fn plain(title: &str, content: &Markup) -> Markup {
    frame(title, &html! {}, &html! { main.narrow id="main" tabindex="-1" { (content) } })
}

/// The page for what has failed.
pub fn failure(who: Option<&Principal>, status: StatusCode, error: &Error) -> Answer {
    let title = match status {
        StatusCode::NOT_FOUND => "There is no such page",
        StatusCode::FORBIDDEN => "This account may not do that",
        status if status.is_server_error() => "Something has failed",
        _ => "That did not work",
    };
    let content = html! {
        h1 { (title) }
        @if status == StatusCode::NOT_FOUND {
            p { "It may have been deleted meanwhile, or your account does not see it." }
        } @else {
            p { (error.message) }
        }
        p.small { "HTTP " (status.as_u16()) " · code " (error.code) }
        @if status.is_server_error() { p { "The log of this node says more. Nothing that you have asked for was done unless the audit log says so." } }
        p { a href=(super::ROOT) { @if who.is_some() { "To the SVMs" } @else { "To the login" } } }
    };
    super::page(status, plain(title, &content))
}

fn frame(title: &str, head: &Markup, body: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Keystead" }
                link rel="icon" href=(ICON.path()) type="image/svg+xml";
                link rel="stylesheet" href=(STYLE.path());
                script src=(SCRIPT.path()) defer {}
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header {
                    a.brand href=(super::ROOT) { "Keystead" }
                    (head)
                }
                (body)
            }
        }
    }
}

/// A table that becomes a list of cards where there is little room: each cell bears the name of its column. Roles are said, since a table that is shown as something else is none to all browsers.
pub fn table(caption: &str, columns: &[&str], rows: &[Vec<Markup>], empty: &str) -> Markup {
    html! {
        @if rows.is_empty() {
            p.empty { (empty) }
        } @else {
            table role="table" {
                caption.unseen { (caption) }
                thead role="rowgroup" { tr role="row" { @for column in columns { th role="columnheader" scope="col" { (column) } } } }
                tbody role="rowgroup" {
                    @for row in rows {
                        tr role="row" {
                            // The first cell says what the row is about.
                            @for (at, (column, cell)) in columns.iter().zip(row).enumerate() {
                                @if at == 0 { th role="rowheader" scope="row" data-label=(column) { div { (cell) } } }
                                @else { td role="cell" data-label=(column) { div { (cell) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A list of names and values.
pub fn facts(facts: &[(&str, Markup)]) -> Markup {
    html! {
        dl.facts { @for (name, value) in facts { div { dt { (name) } dd { (value) } } } }
    }
}

/// A moment of the API, as a time of the day in UTC, with how long ago that was.
pub fn moment(text: &str, now: Timestamp) -> Markup {
    let Ok(at) = text.parse::<Timestamp>() else { return html! { "–" } };
    html! { time datetime=(text) title=(at.strftime("%Y-%m-%d %H:%M:%S UTC")) { (ago(at, now)) } }
}

/// The same with the day first, as a log shows it.
pub fn stamp(text: &str) -> Markup {
    let Ok(at) = text.parse::<Timestamp>() else { return html! { "–" } };
    html! { time.stamp datetime=(text) { (at.strftime("%Y-%m-%d %H:%M:%S")) } }
}

/// The day of a moment.
pub fn day(text: &str) -> Markup {
    let Ok(at) = text.parse::<Timestamp>() else { return html! { "–" } };
    html! { time datetime=(text) { (at.strftime("%Y-%m-%d")) } }
}

fn clock(at: Timestamp) -> Markup {
    html! { time datetime=(at.strftime("%Y-%m-%dT%H:%M:%SZ")) { (at.strftime("%H:%M:%S UTC")) } }
}

/// How long ago something was, or in how long it will be, in words.
pub fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs();
    let length = length(seconds.unsigned_abs());
    if seconds < 0 { format!("in {length}") } else { format!("{length} ago") }
}

/// A length of time in words, in its largest unit.
pub fn length(seconds: u64) -> String {
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3_600),
        _ => format!("{} days", seconds / 86_400),
    }
}

/// The way to the page after this one, and back to the first.
pub fn pager(first: &str, next: Option<&str>, is_first: bool) -> Markup {
    html! {
        @if next.is_some() || !is_first {
            nav.pager aria-label="Pages" {
                @if !is_first { a href=(first) { "First page" } }
                @if let Some(next) = next { a href=(next) rel="next" { "Next page" } }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_in_their_largest_unit() {
        for (seconds, text) in [(0, "0 s"), (119, "119 s"), (120, "2 min"), (7_200, "2 h"), (172_800, "2 days")] {
            assert_eq!(length(seconds), text);
        }
        let now = Timestamp::UNIX_EPOCH + jiff::SignedDuration::from_secs(1_000);
        assert_eq!(ago(Timestamp::UNIX_EPOCH, now), "16 min ago");
        assert_eq!(ago(now, Timestamp::UNIX_EPOCH), "in 16 min");
    }

    #[test]
    fn what_a_table_shows_is_escaped_where_it_is_text() {
        let name = "<script>alert(1)</script>\"'";
        let table = table(name, &["Name"], &[vec![html! { (name) }]], "").into_string();
        assert!(!table.contains("<script") && table.contains("&lt;script&gt;"), "{table}");
        assert!(!moment(name, Timestamp::UNIX_EPOCH).into_string().contains("script"));
    }
}
