//! Frames out of any bytes, cut anywhere.

use lmx_core::wire::frame::{self, Decoder};
use lmx_core::wire::{Answer, Command, Reply, Request};

const FRAME_BYTES_MAX: u32 = 4096;

/// The first byte says how the rest is cut; what comes out must not depend on that.
pub fn frame_decoder(data: &[u8]) {
    let Some((&cut, stream)) = data.split_first() else {
        return;
    };
    let whole = bodies_of(std::iter::once(stream));
    let pieces = bodies_of(stream.chunks(usize::from(cut).max(1)));
    assert_eq!(whole, pieces);
    for body in &whole.0 {
        if let Ok(request) = Request::decode(body) {
            read_wants(&request);
            let mut bytes = Vec::new();
            frame::append(&request, &mut bytes);
            let again = frame::split(&bytes, u32::MAX).unwrap().unwrap();
            assert_eq!(Request::decode(again.body), Ok(request));
        }
        if let Ok(reply) = Reply::decode(body) {
            read_sequences(&reply);
            let mut bytes = Vec::new();
            frame::append(&reply, &mut bytes);
            let mut slice = vec![0; bytes.len()];
            assert_eq!(frame::encode(&reply, &mut slice), Ok(&*bytes));
            let again = frame::split(&bytes, u32::MAX).unwrap().unwrap();
            assert_eq!(Reply::decode(again.body), Ok(reply));
        }
    }
}

/// The bodies, and whether the stream ended in an error.
fn bodies_of<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> (Vec<Vec<u8>>, bool) {
    let mut decoder = Decoder::new(FRAME_BYTES_MAX);
    let mut bodies = Vec::new();
    for mut piece in pieces {
        loop {
            match decoder.next_frame(&mut piece) {
                Ok(Some(body)) => bodies.push(body.to_vec()),
                Ok(None) => break,
                Err(_) => return (bodies, true),
            }
        }
        assert!(piece.is_empty());
    }
    (bodies, false)
}

fn read_wants(request: &Request<'_>) {
    let (Command::Acquire(fields)
    | Command::Reclaim {
        request: fields, ..
    }) = request.body
    else {
        return;
    };
    for want in fields.wants.iter() {
        let _ = want;
    }
}

fn read_sequences(reply: &Reply<'_>) {
    match reply.body {
        Answer::Busy { holders, .. } | Answer::ForceReleased { holders, .. } => {
            assert!(holders.iter().count() <= FRAME_BYTES_MAX as usize);
        }
        Answer::Inspected { requests, .. } => {
            assert!(requests.iter().count() <= FRAME_BYTES_MAX as usize);
        }
        Answer::Listed(page) => {
            assert!(page.keys.iter().count() <= FRAME_BYTES_MAX as usize);
        }
        _ => {}
    }
}
