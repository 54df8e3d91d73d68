//! For tests: a node that answers what it was told to, in that order, without TLS.

use crate::connection::Context;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// What the node does with a call.
pub(crate) enum Reply {
    /// A status, headers (each with its end of line), and a body.
    Answer(u16, &'static str, String),
    /// Ends the connection instead.
    End,
    /// Says nothing.
    Hang,
}

/// A context for such a node, and what it was asked. `None`: it ends the connection instead.
pub(crate) async fn scripted(answers: Vec<Option<(u16, Value)>>) -> (Context, JoinHandle<Vec<String>>) {
    let reply = |answer: Option<(u16, Value)>| answer.map_or(Reply::End, |(status, body)| Reply::Answer(status, "", body.to_string()));
    replying(answers.into_iter().map(reply).collect()).await
}

/// The same with all that a node can do.
pub(crate) async fn replying(replies: Vec<Reply>) -> (Context, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let context = Context::of_tests(format!("http://{}", listener.local_addr().unwrap()));
    let node = tokio::spawn(async move {
        let (mut asked, mut silent) = (Vec::new(), Vec::new());
        for reply in replies {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let head = String::from_utf8(head).unwrap();
            asked.push(head.split(" HTTP/").next().unwrap().to_owned());
            match reply {
                Reply::Answer(status, headers, body) => {
                    let text = format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\n{headers}connection: close\r\n\r\n{body}", body.len());
                    // Who has heard enough goes away.
                    let _ = stream.write_all(text.as_bytes()).await;
                }
                Reply::End => {}
                Reply::Hang => silent.push(stream),
            }
        }
        if !silent.is_empty() {
            std::future::pending::<()>().await;
        }
        asked
    });
    (context, node)
}
