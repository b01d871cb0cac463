//! gRPC by tonic: one server for unary calls and streams.
//!
//! Windows are large from the start, and streams are not limited to hyper's 200: with those defaults a connection
//! would stand still with many calls or large bodies in flight. Frames may be large as well: in those of 16 KiB that
//! are the default, 100 KiB take nearly twice the processor time.

pub(crate) mod stream;

pub(crate) mod unary;

mod codec;

use std::net::SocketAddr;

use anyhow::Context as _;
use greenroom_bench_load::announce;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Channel, Server};
use tonic::{Request, Response, Status, Streaming};

/// The contract, as `proto/echo.proto` has it.
mod contract {
    #![allow(unreachable_pub)]
    tonic::include_proto!("bench.echo");
}

use contract::echo_server::{Echo, EchoServer};
use contract::{Body, Numbered};

/// Bytes of one stream that need no permission to be sent.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same, of all streams of a connection.
const CONNECTION_WINDOW: u32 = 32 << 20;
/// The largest frame: any message of the comparison fits.
const FRAME: u32 = 1 << 20;
/// Streams at once.
const STREAMS: u32 = 4096;

struct EchoService;

#[tonic::async_trait]
impl Echo for EchoService {
    type ConverseStream = Streaming<Numbered>;

    async fn say(&self, request: Request<Body>) -> Result<Response<Body>, Status> {
        Ok(Response::new(request.into_inner()))
    }

    async fn converse(&self, request: Request<Streaming<Numbered>>) -> Result<Response<Self::ConverseStream>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}

/// Answers until it is killed.
pub(crate) async fn serve(at: SocketAddr) -> anyhow::Result<()> {
    let incoming = TcpIncoming::bind(at).with_context(|| format!("cannot listen on {at}"))?.with_nodelay(Some(true));
    announce(&at.to_string())?;
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME)
        .max_concurrent_streams(STREAMS)
        .add_service(EchoServer::new(EchoService))
        .serve_with_incoming(incoming)
        .await?;
    Ok(())
}

async fn connect(at: SocketAddr) -> anyhow::Result<Channel> {
    let endpoint = Channel::from_shared(format!("http://{at}"))?
        .tcp_nodelay(true)
        .max_frame_size(FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    endpoint.connect().await.with_context(|| format!("cannot connect to {at}"))
}
