//! Forms: what one brings, how it becomes the body of a call, and how it is shown again with what is wrong in it. Secrets are never shown again.

use super::visit::object;
use crate::field::Kind;
use crate::query::decode;
use crate::resource::Declared;
use keystead_manager::{Error, Result};
use maud::{Markup, html};
use serde_json::Value as Json;
use zeroize::Zeroizing;

/// The field that shows that a form comes from a page of its session.
pub const CSRF: &str = "csrf_token";

/// What was filled in. Fields of a call have its names: dotted paths.
#[derive(Default)]
pub struct Form(Vec<(String, Zeroizing<String>)>);

impl Form {
    /// Reads `application/x-www-form-urlencoded`. Of a field that is there twice, the first counts.
    ///
    /// # Errors
    /// 39387137.
    pub fn parse(text: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(text).map_err(|_| Error::with(keystead_manager::Code::BadUrl, "the form is not UTF-8"))?;
        let pairs = text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // Browsers end lines as HTTP does.
            Ok((decode(name)?, Zeroizing::new(decode(value)?.replace("\r\n", "\n"))))
        });
        pairs.collect::<Result<_>>().map(Self)
    }

    /// The value of a field; empty where it is not there.
    pub fn get(&self, name: &str) -> &str {
        self.0.iter().find(|(other, _)| other == name).map_or("", |(_, value)| value)
    }

    /// Whether it is there, as a box that is ticked.
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(other, _)| other == name)
    }

    /// Whether nothing was sent: the form is shown for the first time.
    pub fn is_new(&self) -> bool {
        self.0.is_empty()
    }

    /// The body of a call: these fields as far as they were filled in, each as its declaration wants it. What cannot be a number stays what it is, for the call to refuse.
    pub fn body(&self, of: &dyn Declared, names: &[&str]) -> Json {
        object(names.iter().filter(|name| !self.get(name).is_empty()).map(|name| (*name, self.value(of, name))))
    }

    /// The body of a call that changes something: those of these fields, and of these boxes, that are not what they were when the form was shown (see [`Form::before`]). What was emptied is null.
    pub fn changes(&self, of: &dyn Declared, names: &[&str], boxes: &[&str]) -> Json {
        let fields = names.iter().filter(|name| self.get(name) != self.get(&was(name)));
        let fields = fields.map(|name| (*name, if self.get(name).is_empty() { Json::Null } else { self.value(of, name) }));
        let boxes = boxes.iter().map(|name| (*name, self.has(name))).filter(|(name, ticked)| ticked.to_string() != self.get(&was(name)));
        object(fields.chain(boxes.map(|(name, ticked)| (name, Json::Bool(ticked)))))
    }

    /// What a field was when the form was shown for the first time, `value` then, for [`Form::changes`]. Never that of a secret.
    pub fn before(&self, name: &str, value: impl FnOnce() -> String) -> Markup {
        let before = if self.is_new() { value() } else { self.get(&was(name)).to_owned() };
        html! { @if !before.is_empty() { input type="hidden" name=(was(name)) value=(before); } }
    }

    /// A field as its declaration wants it.
    fn value(&self, of: &dyn Declared, name: &str) -> Json {
        let text = self.get(name);
        let is_number = of.spec(name).is_some_and(|spec| matches!(spec.kind, Kind::Integer(..)));
        let number = if is_number { text.trim().parse::<i64>().ok() } else { None };
        number.map_or_else(|| Json::from(text), Json::from)
    }
}

/// The name of the field that says what another one was when the form was shown.
fn was(name: &str) -> String {
    format!("was.{name}")
}

/// A form as it is shown: what was filled in, and what is wrong with it.
pub struct Shown<'f> {
    form: &'f Form,
    error: Option<&'f Error>,
    /// The fields beside which an error can stand.
    known: &'f [&'static str],
}

/// How a field is filled in.
#[derive(Clone, Copy)]
pub enum How<'h> {
    /// One line.
    Line,
    /// One line that browsers and people must not correct: names, identifiers.
    Code,
    /// A whole number, from and to.
    Number(i64, i64),
    /// A secret, and what browsers may do with it (`autocomplete`).
    Secret(&'static str),
    /// Lines.
    Lines,
    /// One of these: value and text.
    Choice(&'h [(&'h str, &'h str)]),
}

/// A field.
pub struct Field<'h> {
    /// The dotted path.
    pub name: &'static str,
    /// What it is called.
    pub label: &'h str,
    /// How it is filled in.
    pub how: How<'h>,
    /// What is to be known about it.
    pub hint: &'h str,
    /// Whether it must be.
    pub required: bool,
    /// Whether it is not said that it may be left empty: another field decides.
    pub depends: bool,
    /// What stands there before anything was filled in.
    pub value: &'h str,
}

impl<'h> Field<'h> {
    /// One that may be left empty.
    pub const fn new(name: &'static str, label: &'h str, how: How<'h>) -> Self {
        Self { name, label, how, hint: "", required: false, depends: false, value: "" }
    }

    /// With something to be known.
    #[must_use]
    pub const fn hint(self, hint: &'h str) -> Self {
        Self { hint, ..self }
    }

    /// One that must be filled in.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// One that must be filled in unless another one is.
    #[must_use]
    pub const fn depends(self) -> Self {
        Self { depends: true, ..self }
    }

    /// With a value from the beginning.
    #[must_use]
    pub const fn value(self, value: &'h str) -> Self {
        Self { value, ..self }
    }
}

impl<'f> Shown<'f> {
    /// A form. `known`: the fields beside which an error can stand.
    pub fn new(form: &'f Form, error: Option<&'f Error>, known: &'f [&'static str]) -> Self {
        Self { form, error, known }
    }

    /// What is wrong, above the form. It has the focus, so that it is read first.
    pub fn trouble(&self, what: &str) -> Markup {
        let at = self.target();
        html! {
            @if let Some(error) = self.error {
                div.notice.bad role="alert" tabindex="-1" autofocus {
                    p { strong { (what) } }
                    p { (error.message) }
                    p.small { "Code " (error.code) @if let Some(at) = at { " · " a href={ "#" (id(at)) } { "Go to the field" } } }
                }
            }
        }
    }

    /// A field with its label, what is to be known about it, and what is wrong with it.
    pub fn field(&self, field: &Field<'_>) -> Markup {
        let id = id(field.name);
        let wrong = self.target() == Some(field.name);
        let (hint, trouble) = (format!("{id}-hint"), format!("{id}-error"));
        let mut described = Vec::new();
        if wrong {
            described.push(trouble.as_str());
        }
        if !field.hint.is_empty() {
            described.push(hint.as_str());
        }
        let described = (!described.is_empty()).then(|| described.join(" "));
        let value = if self.form.is_new() { field.value } else { self.form.get(field.name) };
        let invalid = wrong.then_some("true");
        html! {
            div.field {
                label for=(id) { (field.label) @if !field.required && !field.depends { span.optional { " optional" } } }
                @match field.how {
                    How::Line => { input type="text" id=(id) name=(field.name) value=(value) required[field.required] aria-invalid=[invalid] aria-describedby=[described.as_deref()]; }
                    How::Code => { input.code type="text" id=(id) name=(field.name) value=(value) required[field.required] aria-invalid=[invalid] aria-describedby=[described.as_deref()] autocomplete="off" autocapitalize="none" spellcheck="false"; }
                    How::Number(low, high) => { input type="number" inputmode="numeric" id=(id) name=(field.name) value=(value) min=(low) max=(high) required[field.required] aria-invalid=[invalid] aria-describedby=[described.as_deref()] autocomplete="off"; }
                    How::Secret(autocomplete) => { input.code type="password" id=(id) name=(field.name) required[field.required] aria-invalid=[invalid] aria-describedby=[described.as_deref()] autocomplete=(autocomplete) autocapitalize="none" spellcheck="false"; }
                    How::Lines => { textarea.code id=(id) name=(field.name) rows="5" required[field.required] aria-invalid=[invalid] aria-describedby=[described.as_deref()] autocomplete="off" spellcheck="false" { (value) } }
                    How::Choice(choices) => { select id=(id) name=(field.name) aria-invalid=[invalid] aria-describedby=[described.as_deref()] {
                        @for (each, text) in choices {
                            option value=(each) selected[*each == value] { (text) }
                        }
                    } }
                }
                @if wrong && let Some(error) = self.error {
                    p.error id=(trouble) { (error.message) " (code " (error.code) ")" }
                }
                @if !field.hint.is_empty() {
                    p.hint id=(hint) { (field.hint) }
                }
            }
        }
    }

    /// A box to be ticked.
    pub fn tick(&self, name: &'static str, label: &str, hint: &str, ticked: bool) -> Markup {
        let id = id(name);
        let ticked = if self.form.is_new() { ticked } else { self.form.has(name) };
        let wrong = self.target() == Some(name);
        html! {
            div.field.tick {
                input type="checkbox" id=(id) name=(name) value="true" checked[ticked] aria-describedby={ @if wrong { (id) "-error " } (id) "-hint" } aria-invalid=[wrong.then_some("true")];
                label for=(id) { (label) }
                p.hint id={ (id) "-hint" } { (hint) }
                @if wrong && let Some(error) = self.error { p.error id={ (id) "-error" } { (error.message) " (code " (error.code) ")" } }
            }
        }
    }

    /// The field that the error is about, where it is one of this form.
    fn target(&self) -> Option<&'static str> {
        let target = self.error?.target.as_deref()?;
        self.known.iter().copied().find(|name| *name == target)
    }

    /// Whether one of these fields was filled in, or is wrong: then what folds them away is open.
    pub fn uses(&self, names: &[&str]) -> bool {
        names.iter().any(|name| !self.form.get(name).is_empty()) || self.target().is_some_and(|target| names.contains(&target))
    }
}

/// The identifier of a field in its page.
fn id(name: &str) -> String {
    format!("f-{}", name.replace(['.', '_'], "-"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::aws_kms::AWS_KMS;
    use keystead_manager::Code;
    use serde_json::json;

    #[test]
    fn a_form_becomes_the_body_of_a_call() {
        let form = Form::parse(b"region=eu%2Dwest-1&port=8443&timeout=x&keystead.max_unverified=4h&svm.name=a+b&svm.name=c&host=&pem=a%0D%0Ab").unwrap();
        let body = form.body(&AWS_KMS, &["region", "port", "timeout", "keystead.max_unverified", "svm.name", "host", "service"]);
        assert_eq!(body, json!({ "region": "eu-west-1", "port": 8443, "timeout": "x", "keystead": { "max_unverified": "4h" }, "svm": { "name": "a b" } }));
        assert_eq!(form.get("pem"), "a\nb");
        assert!(Form::parse(b"a=%ff").is_err() && Form::parse(b"\xff").is_err());
    }

    #[test]
    fn what_was_not_changed_is_not_sent() {
        let form = Form::parse(
            b"region=eu-west-1&was.region=us-east-1&host=&was.host=kms.example&port=443&was.port=443&verify=true&was.verify=true&was.verify_ip=true&timeout=5",
        )
        .unwrap();
        let body = form.changes(&AWS_KMS, &["region", "host", "port", "timeout", "secret_access_key"], &["verify", "verify_host", "verify_ip"]);
        assert_eq!(body, json!({ "region": "eu-west-1", "host": null, "timeout": 5, "verify_host": false, "verify_ip": false }));
        assert!(Form::default().before("host", || "a\"b".to_owned()).into_string().contains(r#"name="was.host" value="a&quot;b""#));
    }

    #[test]
    fn an_error_stands_beside_its_field_and_no_secret_is_shown_again() {
        let form = Form::parse(b"region=%3Cb%3E&secret_access_key=hunter2").unwrap();
        let error = Error::with(Code::InvalidValue, "<i>").target("region");
        let shown = Shown::new(&form, Some(&error), &["region", "secret_access_key"]);
        let text = shown.field(&Field::new("region", "Region", How::Code)).into_string();
        assert!(text.contains(r#"aria-invalid="true" aria-describedby="f-region-error""#) && text.contains("&lt;b&gt;") && !text.contains("<i>"), "{text}");
        assert!(shown.trouble("No").into_string().contains(r##"href="#f-region""##));
        let secret = shown.field(&Field::new("secret_access_key", "Secret", How::Secret("off"))).into_string();
        assert!(!secret.contains("hunter2") && !secret.contains("aria-invalid"), "{secret}");
    }
}
