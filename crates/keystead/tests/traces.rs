//! Traces: one POST is one trace, from HTTP through the job to AWS. The collector is the test's own, and reads what a real one would.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use crate::common;

use common::cluster::Cluster;
use common::program::{Program, fails, free_port, serve};
use common::{Log, PASSWORD, SECRET, enable_body, eventually, stand_in, toml_for};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value as Attribute;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A collector of OTLP over HTTP.
struct Collector {
    address: SocketAddr,
    spans: Log<Span>,
    requests: Log<String>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, spans, requests) = (listener.local_addr().unwrap(), Log::<Span>::default(), Log::<String>::default());
        let (all, lines) = (spans.clone(), requests.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(take(stream, all.clone(), lines.clone()));
            }
        });
        Self { address, spans, requests }
    }

    /// The spans of a trace.
    fn trace(&self, id: &[u8]) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.trace_id == id).cloned().collect()
    }

    fn named(&self, name: &str) -> Vec<Span> {
        self.spans.lock().unwrap().iter().filter(|span| span.name == name).cloned().collect()
    }
}

/// Reads requests of one connection (HTTP/1.1 with a length), and takes their spans.
async fn take(stream: TcpStream, spans: Log<Span>, requests: Log<String>) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let (mut head, mut length) = (String::new(), 0);
        loop {
            let start = head.len();
            if stream.read_line(&mut head).await.ok()? == 0 {
                return None;
            }
            let line = head[start..].trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        requests.lock().unwrap().push(head);
        let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("this is no OTLP request");
        let all = request.resource_spans.into_iter().flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        spans.lock().unwrap().extend(all);
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/x-protobuf\r\ncontent-length: 0\r\n\r\n").await.ok()?;
    }
}

fn attribute(span: &Span, name: &str) -> Option<String> {
    let value = span.attributes.iter().find(|attribute| attribute.key == name)?.value.clone()?.value?;
    Some(match value {
        Attribute::StringValue(text) => text,
        Attribute::IntValue(number) => number.to_string(),
        other => panic!("{other:?}"),
    })
}

/// Enables AWS KMS, with further headers, and answers status and body.
async fn enable(program: &Program, body: Value, headers: &[(&str, &str)]) -> (u16, Value) {
    let request =
        program.client().post(format!("https://127.0.0.1:{}/api/security/aws-kms?return_timeout=60", program.port)).basic_auth("admin", Some(PASSWORD));
    let request = headers.iter().fold(request.body(body.to_string()), |request, (name, value)| request.header(*name, *value));
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_post_is_one_trace_from_http_through_the_job_to_aws() {
    let (collector, (kms, key)) = (Collector::start().await, stand_in().await);
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("{}[tracing]\notlp_endpoint = \"http://{}\"\n", toml_for(&kms, folder.path()), collector.address);
    // The library's own variable: else a batch waits for 5 s.
    let variables = [("KEYSTEAD_ADMIN_PASSWORD", PASSWORD), ("OTEL_BSP_SCHEDULE_DELAY", "100")];
    let mut program = Program::start(folder.path(), &toml, &variables).await;
    for svm in ["svm1", "svm2"] {
        let request = program.client().post(format!("https://127.0.0.1:{}/api/svm/svms?return_timeout=30", program.port));
        let answer = request.basic_auth("admin", Some(PASSWORD)).body(json!({ "name": svm }).to_string()).send().await.unwrap();
        assert_eq!(answer.status(), 201);
    }
    let context = "purpose=a-context-that-nobody-else-sees";
    let mut body = enable_body("svm1", &kms, &key);
    body["encryption_context"] = json!(context);
    let (status, answer) = enable(&program, body, &[]).await;
    assert_eq!(status, 201, "{answer}");

    let trace = eventually("the trace must arrive", async || {
        let post = collector.named("POST /api/security/aws-kms").pop()?;
        let trace = collector.trace(&post.trace_id);
        (trace.len() >= 5).then_some(trace)
    })
    .await;
    let one = |name: &str| {
        let named: Vec<&Span> = trace.iter().filter(|span| span.name == name).collect();
        let [span] = named[..] else { panic!("{name}: {trace:?}") };
        span
    };
    let (http, job) = (one("POST /api/security/aws-kms"), one("job enable"));
    assert_eq!((http.kind(), http.parent_span_id.is_empty()), (SpanKind::Server, true));
    assert_eq!(
        (attribute(http, "http.route").as_deref(), attribute(http, "http.response.status_code").as_deref()),
        (Some("/api/security/aws-kms"), Some("201"))
    );
    assert_eq!(job.parent_span_id, http.span_id, "the job belongs to its request");
    assert_eq!(attribute(job, "svm.name").as_deref(), Some("svm1"));
    for operation in ["DescribeKey", "Encrypt", "Decrypt"] {
        let call = one(&format!("KMS.{operation}"));
        assert_eq!((call.kind(), &call.parent_span_id), (SpanKind::Client, &job.span_id), "{operation}");
        for (name, value) in [("rpc.method", operation), ("cloud.region", "us-east-1"), ("keystead.result", "ok")] {
            assert_eq!(attribute(call, name).as_deref(), Some(value), "{operation}");
        }
        assert!(attribute(call, "aws.request_id").is_some_and(|id| !id.is_empty()), "{operation}: {call:?}");
    }

    // A client that has a trace finds the call in it; and what AWS refuses is an error of the call and of the job.
    let mut unknown = enable_body("svm2", &kms, &key);
    unknown["access_key_id"] = json!("AKIAUNKNOWNUNKNOWN00");
    let (parent, id) = ("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "0af7651916cd43dd8448eb211c80319c");
    assert!(enable(&program, unknown, &[("traceparent", parent)]).await.0 >= 400);
    let id: Vec<u8> = (0..16).map(|at| u8::from_str_radix(&id[2 * at..2 * at + 2], 16).unwrap()).collect();
    let failed = eventually("the trace of the client must go on", async || {
        let trace = collector.trace(&id);
        (trace.iter().any(|span| span.name.starts_with("POST")) && trace.iter().any(|span| span.name == "job enable")).then_some(trace)
    })
    .await;
    let is_error = |span: &Span| span.status.as_ref().is_some_and(|status| status.code == 2);
    assert!(failed.iter().any(|span| span.name == "job enable" && is_error(span)), "{failed:?}");
    assert!(failed.iter().any(|span| span.name.starts_with("KMS.") && is_error(span) && attribute(span, "error.type").is_some()), "{failed:?}");

    assert_eq!(program.stop(), Some(0));
    let all = format!("{:?}{:?}", collector.spans.lock().unwrap(), collector.requests.lock().unwrap());
    for secret in [SECRET, PASSWORD, context, common::ACCESS_KEY_ID] {
        assert!(!all.contains(secret), "{secret} must not be in a trace");
    }
    assert!(collector.requests.lock().unwrap().iter().all(|head| head.starts_with("POST /v1/traces HTTP/1.1")));
    assert!(!program.said().contains("keystead_trace"), "spans are not in the log: {}", program.said());
}

/// A job asks the other node, which asks AWS: one trace on both.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trace_goes_on_at_the_node_that_is_asked() {
    let collector = Collector::start().await;
    let mut cluster = Cluster::start(1, 2).await;
    let (config, _) = cluster.tenant("svm1").await;
    for number in 0..2 {
        cluster.stop(number);
        let path = cluster.folder(number).join("keystead.toml");
        let toml = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{toml}\n[tracing]\notlp_endpoint = \"http://{}\"\n", collector.address)).unwrap();
        cluster.restart(number).await;
    }
    eventually("both nodes must be there", async || (cluster.node(0).get("/cluster/nodes?state=up").await["num_records"] == 2).then_some(())).await;
    let (status, answer) = cluster.node(0).call("POST", &format!("{config}/restore?return_timeout=60"), None).await.unwrap();
    assert_eq!(status, 201, "{answer}");
    let (ask, trace) = eventually("the trace must arrive", async || {
        let ask = collector.named("ask restore").pop()?;
        let trace = collector.trace(&ask.trace_id);
        ["job restore", "answer restore"].iter().all(|name| trace.iter().any(|span| span.name == *name)).then_some((ask, trace))
    })
    .await;
    let one = |name: &str| trace.iter().find(|span| span.name == name).unwrap();
    assert_eq!((ask.kind(), &ask.parent_span_id), (SpanKind::Client, &one("job restore").span_id));
    assert!(attribute(&ask, "keystead.node").is_some_and(|node| node.starts_with("node")));
    let answered = one("answer restore");
    assert_eq!((answered.kind(), &answered.parent_span_id), (SpanKind::Server, &ask.span_id));
    eventually("what the other node asks of AWS belongs to it", async || {
        collector.trace(&ask.trace_id).iter().any(|span| span.name == "KMS.Decrypt" && span.parent_span_id == answered.span_id).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_holds_nothing_up() {
    let (kms, key) = stand_in().await;
    let folder = tempfile::tempdir().unwrap();
    let toml = format!("{}[tracing]\notlp_endpoint = \"http://127.0.0.1:{}\"\n", toml_for(&kms, folder.path()), free_port());
    let mut program = Program::start(folder.path(), &toml, &[("KEYSTEAD_ADMIN_PASSWORD", PASSWORD), ("OTEL_BSP_SCHEDULE_DELAY", "100")]).await;
    let request = program.client().post(format!("https://127.0.0.1:{}/api/svm/svms?return_timeout=30", program.port));
    assert_eq!(request.basic_auth("admin", Some(PASSWORD)).body(json!({ "name": "svm1" }).to_string()).send().await.unwrap().status(), 201);
    assert_eq!(enable(&program, enable_body("svm1", &kms, &key), &[]).await.0, 201);
    eventually("it must be said", async || program.said().contains("the collector does not take traces").then_some(())).await;
    assert_eq!(program.stop(), Some(0));
    assert_eq!(program.said().matches("the collector does not take traces").count(), 1, "once");
}

#[test]
fn an_endpoint_with_a_secret_in_it_is_refused_and_not_shown() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("keystead.toml");
    std::fs::write(&config, "[tracing]\notlp_endpoint = \"http://user:hunter2@127.0.0.1:4318\"\n").unwrap();
    let mut command = serve(folder.path(), free_port(), free_port());
    command.arg("--config").arg(&config);
    let said = String::from_utf8(fails(command).stderr).unwrap();
    assert!(said.contains("otlp_endpoint") && !said.contains("hunter2"), "{said}");
}
