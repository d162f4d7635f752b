//! A request's body has to arrive in its time: as a whole, not from byte to byte, so that nobody can hold a
//! place by sending one byte now and then.

use std::{
    error::Error,
    fmt,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

use super::{error::ApiError, front::Front, rate};

/// What a body ends with that took too long.
#[derive(Debug)]
struct TooSlow;

impl fmt::Display for TooSlow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the body did not arrive in time")
    }
}

impl Error for TooSlow {}

struct Timed {
    body: Body,
    alarm: Pin<Box<Sleep>>,
}

impl HttpBody for Timed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.alarm.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(axum::Error::new(TooSlow))));
        }
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Bounds how long a request's body may take: for all routes, as a layer.
pub(super) async fn bounded(State(front): State<Front>, request: Request, next: Next) -> Response {
    let limit = front.http.body_timeout;
    next.run(request.map(|body| if body.is_end_stream() { body } else { timed(body, limit) })).await
}

fn timed(body: Body, limit: Duration) -> Body {
    Body::new(Timed { body, alarm: Box::pin(tokio::time::sleep(limit)) })
}

/// What to tell whose body could not be read whole.
pub(super) fn unread(error: &axum::Error, limit: impl fmt::Display) -> ApiError {
    let mut cause: Option<&dyn Error> = Some(error);
    while let Some(error) = cause {
        if error.is::<TooSlow>() {
            rate::refused("slow");
            return ApiError::new("BODY_TIMEOUT", "the request's body did not arrive in time");
        }
        cause = error.source();
    }
    ApiError::new("PAYLOAD_TOO_LARGE", format!("the request could not be read, or has over {limit} bytes"))
}

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn bytes_now_and_then_do_not_hold_a_place() {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Some((Ok::<_, std::io::Error>(Bytes::from_static(b"x")), ()))
        });
        let begun = tokio::time::Instant::now();
        let read =
            axum::body::to_bytes(timed(Body::from_stream(drops), Duration::from_secs(5)), 1 << 20).await;
        assert_eq!(unread(&read.unwrap_err(), 1).code(), "BODY_TIMEOUT");
        assert_eq!(begun.elapsed().as_secs(), 5);
        let read = axum::body::to_bytes(timed(Body::from("twelve bytes"), Duration::from_secs(5)), 5).await;
        assert_eq!(unread(&read.unwrap_err(), 5).code(), "PAYLOAD_TOO_LARGE");
        let read = axum::body::to_bytes(timed(Body::from("short"), Duration::from_secs(5)), 5).await;
        assert_eq!(read.unwrap(), "short");
    }
}
