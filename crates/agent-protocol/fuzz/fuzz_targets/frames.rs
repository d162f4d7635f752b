//! However a stream is split, it holds the same frames, and what is held of it is bounded.

#![no_main]

use agent_protocol::{FrameDecoder, FrameError};
use libfuzzer_sys::fuzz_target;

fn take(decoder: &mut FrameDecoder, piece: &[u8], frames: &mut Vec<Result<Vec<u8>, FrameError>>) {
    decoder.push(piece);
    while let Some(frame) = decoder.next_frame() {
        frames.push(frame);
    }
}

// The first byte is the limit, the second the number of cuts, which follow, and then the stream.
fuzz_target!(|data: &[u8]| {
    let [limit, cuts, rest @ ..] = data else { return };
    let limit = usize::from(*limit);
    let (cuts, stream) = rest.split_at(usize::from(*cuts % 16).min(rest.len()));

    let mut whole = Vec::new();
    take(&mut FrameDecoder::new(limit), stream, &mut whole);

    let (mut decoder, mut frames, mut left) = (FrameDecoder::new(limit), Vec::new(), stream);
    for cut in cuts {
        let (piece, after) = left.split_at(usize::from(*cut).min(left.len()));
        take(&mut decoder, piece, &mut frames);
        assert!(decoder.pending_bytes() <= limit);
        left = after;
    }
    take(&mut decoder, left, &mut frames);
    assert!(decoder.pending_bytes() <= limit);
    assert_eq!(frames, whole);

    // A line is delivered or reported, in order; only empty ones are passed over.
    let end = stream.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
    let mut lines = stream[..end].split_inclusive(|&byte| byte == b'\n').map(|line| &line[..line.len() - 1]);
    let mut expected = Vec::new();
    for line in lines.by_ref() {
        if line.len() > limit {
            expected.push(Err(FrameError::TooLong { limit }));
        } else {
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            if !line.is_empty() {
                expected.push(Ok(line.to_vec()));
            }
        }
    }
    // A line without an end is reported as soon as it is too long.
    if stream.len() - end > limit {
        expected.push(Err(FrameError::TooLong { limit }));
    }
    assert_eq!(whole, expected);
});
