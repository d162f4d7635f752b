//! What a domain shows on its screen.

use async_trait::async_trait;
use virt::stream::Stream;

use super::{LibvirtHypervisor, session::Call};
use crate::{
    hypervisor::{Console, HypervisorError, MAX_SCREENSHOT_BYTES, Screenshot},
    vm::VmId,
};

#[async_trait]
impl Console for LibvirtHypervisor {
    async fn screenshot(&self, id: VmId) -> Result<Screenshot, HypervisorError> {
        self.on_domain("take a picture of the screen of", id, move |call| screenshot(call, id)).await
    }
}

fn screenshot(call: &Call<'_>, id: VmId) -> Result<Screenshot, HypervisorError> {
    let domain = call.domain(id)?;
    let stream = call.ask(|conn| Stream::new(conn, 0))?;
    let kind = call.ask(|_| domain.screenshot(&stream, 0, 0))?;
    let media_type = match kind.as_str() {
        "image/png" => Ok("image/png"),
        "image/x-portable-pixmap" => Ok("image/x-portable-pixmap"),
        _ => Err(call.invalid(format_args!("the picture is of kind {kind:?}"))),
    };
    let received = media_type.and_then(|media_type| Ok((media_type, receive(call, &stream)?)));
    match received {
        Ok((media_type, bytes)) => {
            call.ask(|_| stream.finish())?;
            Ok(Screenshot { media_type, bytes })
        }
        Err(error) => {
            // A stream that is neither finished nor aborted stays with the connection.
            if let Err(failed) = call.ask(|_| stream.abort()) {
                tracing::debug!(vm = %id, error = crate::vm::chain(&failed), "a stream could not be aborted");
            }
            Err(error)
        }
    }
}

fn receive(call: &Call<'_>, stream: &Stream) -> Result<Vec<u8>, HypervisorError> {
    let mut bytes = Vec::new();
    let mut piece = vec![0_u8; 256 << 10];
    loop {
        let read = call.ask(|_| stream.recv(&mut piece))?;
        match usize::try_from(read) {
            Ok(0) => return Ok(bytes),
            Ok(read) if bytes.len() + read <= MAX_SCREENSHOT_BYTES => {
                bytes.extend_from_slice(&piece[..read]);
            }
            Ok(_) => {
                return Err(call.invalid(format_args!("the picture has over {MAX_SCREENSHOT_BYTES} bytes")));
            }
            Err(_) => return Err(call.invalid("the picture broke off")),
        }
    }
}
