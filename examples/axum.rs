//! A node inside an axum server: an HTTP handler asks an actor.
//!
//! ```text
//! cargo run -p greenroom-examples --example axum                      # asks itself twice, and ends
//! cargo run -p greenroom-examples --example axum -- 127.0.0.1:3000    # until Ctrl-C
//! curl --json '{"seats":2}' 127.0.0.1:3000/tickets/opera
//! ```

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router};
use greenroom::contract::Refusal;
use greenroom::error::ErrorBody;
use greenroom::prelude::*;
use greenroom_examples::stop_signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The tickets of one show.
#[contract(messages(Buy))]
struct Tickets;

#[message(Tickets, ask, reply = u32, refusal = SoldOut)]
struct Buy {
    seats: u32,
}

#[refusal]
#[derive(thiserror::Error)]
#[error("only {left} seats are left")]
struct SoldOut {
    left: u32,
}

struct TicketsActor {
    left: u32,
}

#[actor(Tickets)]
impl TicketsActor {
    fn activate() -> Result<Self, Error> {
        Ok(Self { left: 3 })
    }

    #[ask]
    fn buy(&mut self, msg: Buy) -> Result<u32, SoldOut> {
        self.left = self.left.checked_sub(msg.seats).ok_or(SoldOut { left: self.left })?;
        Ok(self.left)
    }
}

/// A node is cheap to clone, so it goes where the server's other state goes.
async fn buy(State(node): State<Node>, Path(show): Path<String>, Json(msg): Json<Buy>) -> Response {
    match node.actor::<Tickets>(show).ask(msg).await {
        Ok(left) => Json(left).into_response(),
        Err(AskError::Refused(no)) => (status(no.code()), Json(no)).into_response(),
        Err(AskError::Failed(error)) => (status(error.kind().code()), Json(ErrorBody::from(&error))).into_response(),
    }
}

/// Errors and refusals carry numbers that HTTP has.
fn status(code: u16) -> StatusCode {
    StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let node = Node::local("box_office").host::<TicketsActor>().start().await?;
    let app = Router::new().route("/tickets/{show}", post(buy)).with_state(node.clone());
    let given = std::env::args().nth(1);
    let listener = TcpListener::bind(given.as_deref().unwrap_or("127.0.0.1:0")).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    let server = async { axum::serve(listener, app).await.map_err(anyhow::Error::from) };

    if given.is_some() {
        tokio::select! { ended = server => ended?, stop = stop_signal() => stop? }
    } else {
        let visit = async {
            for expected in ["HTTP/1.0 200 OK", "HTTP/1.0 409 Conflict"] {
                let mut stream = TcpStream::connect(address).await?;
                let body = r#"{"seats":2}"#;
                let head =
                    "POST /tickets/opera HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: 11\r\n\r\n";
                stream.write_all(format!("{head}{body}").as_bytes()).await?;
                let mut answer = String::new();
                stream.read_to_string(&mut answer).await?;
                let (first, last) = (answer.lines().next().unwrap_or(""), answer.lines().last().unwrap_or(""));
                println!("{first}: {last}");
                anyhow::ensure!(first == expected, "expected {expected}");
            }
            Ok(())
        };
        tokio::select! { ended = server => ended?, visited = visit => visited? }
    }
    Ok(node.drain().await?)
}
