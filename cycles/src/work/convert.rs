//! The part of an attempt in which containers make of inputs what the model reads.

use std::fs;
use std::io;
use std::path::Path;

use mlwm_engines::{Image, Mount, Output, Request};
use mlwm_spec::Digest;
use mlwm_spec::bytes::ByteSize;
use mlwm_spec::contract::convert::{IN, OUT};
use mlwm_spec::manifest::InputRecord;
use mlwm_storage::points::reach;
use tokio_util::sync::CancellationToken;

use super::{Ground, Work};
use crate::container::{self, Lines, printable};
use crate::disk::Excess;
use crate::ending::judge;
use crate::event::Phase;
use crate::plan::PlannedInput;
use crate::plan::convert::{PlannedConverter, file_name};
use crate::record::Attempt;
use crate::scratch::{create, remove};
use crate::{Error, output};

/// An input, staged, and what converts it.
struct Conversion<'c> {
    input: &'c PlannedInput,
    converter: &'c PlannedConverter,
    image: &'c Image,
    /// Bytes that were staged.
    staged: u64,
    /// Identity of the task.
    identity: Digest,
    /// Where what the container prints is kept.
    log: &'c Path,
}

impl Work<'_> {
    /// Puts what converters make of staged inputs in their places. One runs at a time, beside the containers of
    /// models.
    pub(super) async fn convert(
        &mut self,
        attempt: Attempt,
        ground: &Ground,
        identity: Digest,
        staged: &[InputRecord],
    ) -> Result<(), Error> {
        if ground.converters.is_empty() {
            return Ok(());
        }
        let clock = self.begin(Phase::Convert);
        let _place = tokio::select! {
            // It is never closed.
            place = self.context.machine.converter.acquire() => place.ok(),
            () = self.context.cancel.cancelled() => return Err(Error::Interrupted),
        };
        let log = self.context.scratch.log(self.planned, attempt.number);
        let mut lying = 0;
        let mut held = Vec::new();
        for (input, record) in self.planned.inputs.iter().zip(staged) {
            let image = ground.converters.get(&input.name);
            let (Some(converter), Some(image)) = (&input.convert, image) else {
                lying += record.bytes;
                continue;
            };
            let conversion = Conversion {
                input,
                converter,
                image,
                staged: record.bytes,
                identity,
                log: &log,
            };
            let made = self.convert_one(&conversion).await;
            if log.is_file() {
                self.report.log = Some(log.display().to_string());
                self.context
                    .recorder
                    .has_log(attempt, &log.display().to_string());
            }
            let bytes = made?;
            held.push(self.context.machine.disk.hold(bytes));
            let raw = self.context.scratch.raw(self.planned, &input.name);
            remove(&raw)?;
            reach("convert: raw removed");
            lying += bytes;
        }
        drop(held);
        self.only_holds(lying);
        self.end(Phase::Convert, clock, Some(lying));
        Ok(())
    }

    /// Converts an input, and says how many bytes came of it.
    async fn convert_one(&mut self, conversion: &Conversion<'_>) -> Result<u64, Error> {
        self.claim.check()?;
        let stop = self.context.cancel.child_token();
        let made = {
            let running = self.run_converter(conversion, &stop);
            tokio::pin!(running);
            tokio::select! {
                made = &mut running => made,
                // Another does the task now: two must not.
                () = self.claim.lost.cancelled() => {
                    stop.cancel();
                    let _ = running.await;
                    return self.claim.check().and(Err(Error::Interrupted));
                }
            }
        };
        let (bytes, written) = made.map_err(|error| match error {
            Error::Interrupted => error,
            error => Error::Convert {
                input: conversion.input.name.clone(),
                uri: conversion.input.uri.clone(),
                image: conversion.converter.image.clone(),
                source: Box::new(error),
            },
        })?;
        self.warn_of_log(conversion.log, written);
        Ok(bytes)
    }

    async fn run_converter(
        &self,
        conversion: &Conversion<'_>,
        stop: &CancellationToken,
    ) -> Result<(u64, io::Result<()>), Error> {
        let Conversion {
            input,
            converter,
            log,
            ..
        } = *conversion;
        let folder = self.context.scratch.convert(self.planned, &input.name);
        remove(&folder)?;
        create(&folder)?;
        let request = self.converter_request(conversion, &folder)?;
        let mut lines = Lines::new(self.context, self.planned, log);
        let mut room = converter.room(conversion.staged);
        if let Some(limit) = self.planned.resources.disk
            && !self.is_streamed_in_windows
        {
            room = room.min(limit.0.saturating_sub(conversion.staged));
        }
        // Its model's container does not run yet; one that serves several members may, for one of them.
        let turn = usize::MAX - self.turn;
        let watched = self.context.disk.watch(turn, vec![folder.clone()]);
        reach("convert: before the container");
        let (ended, excess) = {
            let mut take = |line| match line {
                Output::Stdout(line) => lines.log("stdout", &line),
                Output::Stderr(line) => lines.log("stderr", &line),
            };
            let running = self.context.engine.run(&request, &mut take, stop);
            tokio::pin!(running);
            tokio::select! {
                ended = &mut running => (ended?, None),
                excess = watched.excess(room) => {
                    request.kill.cancel();
                    (running.await?, Some(excess))
                }
            }
        };
        drop(watched);
        let (last, written) = lines.finish();
        let refused = |reason: String| Error::Converted {
            reason,
            log: log.to_owned(),
        };
        if let Some(Excess::Limit { written, .. }) = excess {
            return Err(refused(too_much(written, room)));
        }
        let bounds = (&converter.resources, converter.timeout);
        judge(bounds, &ended, excess, log, last)?;
        reach("convert: ran");
        let name = file_name(&input.internal_path);
        let made = self.context.scratch.input(self.planned, &input.name);
        let take = {
            let (folder, made) = (folder.clone(), made.clone());
            move |_: &CancellationToken| take(&folder, &name, room, &made)
        };
        let bytes = self.write(take).await?.map_err(refused)?;
        reach("convert: taken");
        remove(&folder)?;
        Ok((bytes, written))
    }

    fn converter_request(
        &self,
        conversion: &Conversion<'_>,
        folder: &Path,
    ) -> Result<Request, Error> {
        let (planned, input) = (self.planned, conversion.input);
        let mut inputs = planned.inputs.iter();
        let number = inputs.position(|other| other.name == input.name);
        let of = format!("member{}-input{}", planned.member, number.unwrap_or(0));
        let converter = conversion.converter;
        Ok(Request {
            name: container::name(self.context, planned, &of, conversion.identity),
            // By its content: a tag may have been moved.
            image: conversion.image.id.to_string(),
            env: converter.environment.clone(),
            mounts: vec![
                Mount {
                    source: self.context.scratch.raw(planned, &input.name),
                    target: format!("{IN}/{}", input.name),
                    read_only: true,
                },
                Mount {
                    source: folder.to_owned(),
                    target: OUT.to_owned(),
                    read_only: false,
                },
            ],
            resources: converter.resources.clone(),
            timeout: converter.timeout.map(|timeout| timeout.duration()),
            labels: container::labels(conversion.identity),
            command: None,
            network: false,
            user: container::caller()?,
            kill: CancellationToken::new(),
        })
    }
}

/// Takes what a container left in a folder, one file or folder called `name`, to where the model reads it, and says
/// how many bytes it has. The error says what is wrong, to be read after the words "the container".
fn take(folder: &Path, name: &str, room: u64, to: &Path) -> Result<u64, String> {
    let unusable = |error: io::Error| format!("left what cannot be used: {error}");
    let mut found = false;
    for entry in fs::read_dir(folder).map_err(unusable)? {
        let there = entry.map_err(unusable)?.file_name();
        found |= there == name;
        if there != name {
            let there = printable(&there.to_string_lossy());
            return Err(format!(
                "left `{there}` in {OUT}, where only `{name}` may be"
            ));
        }
    }
    output::refuse_special_files(folder)
        .map_err(|reason| format!("left a folder that {reason}"))?;
    let bytes = size(folder).map_err(unusable)?;
    if !found || bytes == 0 {
        return Err(format!("left nothing in {OUT}/{name}"));
    }
    if bytes > room {
        return Err(too_much(bytes, room));
    }
    let parent = to.parent().unwrap_or(to);
    mlwm_storage::create_folders(parent).map_err(unusable)?;
    fs::rename(folder.join(name), to).map_err(unusable)?;
    Ok(bytes)
}

fn too_much(written: u64, room: u64) -> String {
    format!(
        "wrote {}, and may write {}: raise `convert.resources.disk` of the input, or find out why it writes so much",
        ByteSize(written),
        ByteSize(room)
    )
}

/// Bytes of all files below a folder.
fn size(folder: &Path) -> io::Result<u64> {
    let mut bytes: u64 = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let found = entry.metadata()?;
        bytes = bytes.saturating_add(match found.is_dir() {
            true => size(&entry.path())?,
            false => found.len(),
        });
    }
    Ok(bytes)
}
