//! Compiles the contract of the gRPC systems, without a `protoc` program.

fn main() -> anyhow::Result<()> {
    println!("cargo:rerun-if-changed=proto/echo.proto");
    let contract = protox::compile(["proto/echo.proto"], ["proto"])?;
    // Bytes fields share the buffer that they were read into.
    tonic_prost_build::configure().bytes(".").codec_path("crate::grpc::codec::Exact").compile_fds(contract)?;
    Ok(())
}
