//! From a file to a chain: which format each layer is in, and which layer comes below.

use std::path::Path;
use std::sync::Arc;

use crate::buffers::Buffers;
use crate::external::{Found, listed};
use crate::format::hold_names;
use crate::{
    Advice, Backing, Chain, Context, Error, ErrorKind, ExtentSource, Image, ImageFormat, Layer,
    Location, Registry, Result, Storage, detect, open_layer, quoted,
};

/// Opens the image in `storage` and, as far as the policy of the context's opener lets it, the
/// layers below.
///
/// `format` is what the user says; without it, the format is detected. A lower layer is in the
/// format that the layer above states, or detected too, as qemu does.
///
/// # Errors
/// The formats' and the opener's; [`ErrorKind::External`] for layers that name each other in a
/// circle, [`ErrorKind::Limit`] for more than [`Limits::depth`](crate::Limits::depth) of them, and
/// [`ErrorKind::Corrupt`] for a parent that is not the one that the image was made from.
pub fn open_chain(
    registry: &Registry,
    format: Option<&'static dyn ImageFormat>,
    storage: Arc<dyn Storage>,
    path: &Path,
    context: &Arc<Context>,
) -> Result<Chain> {
    let mut opening = Opening { registry, context, trail: Trail::default() };
    let mut layers: Vec<Layer> = Vec::new();
    let mut buffers = Buffers::default();
    let top = Found { storage, location: Location::new(path) };
    let mut next = Some(opening.open(top, format, &[])?);
    while let Some(Opened { mut layer, location }) = next.take() {
        layer.settle(&mut buffers, context);
        if let Some(backing) = layer.source().backing() {
            next = opening.below(backing, &location, layer.format())?;
        }
        layers.push(layer);
    }
    Chain::new(layers, Arc::clone(context))
}

/// A layer, and where the names start that it stores.
struct Opened {
    layer: Layer,
    location: Location,
}

/// A chain that is being opened.
struct Opening<'a> {
    registry: &'a Registry,
    context: &'a Arc<Context>,
    trail: Trail,
}

impl Opening<'_> {
    /// Opens one layer, which must have one of the identifiers in `wanted`, if there are any.
    fn open(
        &mut self,
        found: Found,
        format: Option<&'static dyn ImageFormat>,
        wanted: &[[u8; 16]],
    ) -> Result<Opened> {
        let Found { storage, location } = found;
        self.trail.step(&storage, &location, self.context)?;
        let path = location.path();
        let format = match format {
            Some(format) => format,
            None => self.detected(storage.as_ref(), path).map_err(|error| error.in_file(path))?,
        };
        let image =
            Image { storage: Arc::clone(&storage), location: &location, context: self.context };
        let source = open_layer(format, image)?;
        let held = check_identity(wanted, source.as_ref())
            .and_then(|()| hold_names(self.context, source.as_ref()))
            .map_err(|error| error.in_format(format.name()).in_file(path))?;
        let path = location.shared_path();
        let layer = Layer::new(source, path, format.name()).opened_from(storage).holding(held);
        Ok(Opened { layer, location })
    }

    /// The format that the file seems to be in.
    fn detected(&self, storage: &dyn Storage, path: &Path) -> Result<&'static dyn ImageFormat> {
        let detection = detect(self.registry, storage)?;
        let winner = match self.trail.seen.len() {
            1 => detection.winner()?,
            _ => detection.winner_below()?,
        };
        if let Some(what) = detection.resembles {
            let name = winner.name();
            self.context.notices.concern(path);
            self.context
                .notices
                .note(format!("no image format found, mapped as {name}; it looks like {what}"));
        }
        Ok(winner)
    }

    /// Opens the layer below the image at `location`, which is in `format`; `None` if it is
    /// ignored.
    ///
    /// A name may lead to a file that is not the one that was meant, such as the image itself
    /// after it was moved: then the next name counts. If none does, the first one tells why.
    fn below(
        &mut self,
        backing: &Backing,
        location: &Location,
        format: &'static str,
    ) -> Result<Option<Opened>> {
        let here = |error: Error| error.in_format(format).in_file(location.path());
        let Some(found) = self.context.opener.backing(location, backing).map_err(here)? else {
            return Ok(None);
        };
        let depth = self.trail.seen.len();
        let mut tried = Vec::new();
        let mut first_error = None;
        for found in found {
            let outcome = match found {
                Ok(found) => {
                    let identity = found.storage.identity();
                    if identity.is_some() && tried.contains(&identity) {
                        continue;
                    }
                    tried.push(identity);
                    match self.stated(backing, &found) {
                        Ok(format) => self.open(found, format, &backing.identifiers),
                        Err(error) => Err(here(error)),
                    }
                }
                Err(error) => Err(here(error)),
            };
            match outcome {
                Ok(opened) => return Ok(Some(opened)),
                // The file is the one that is meant, and odd. The next name is not looked at.
                Err(error) if error.kind() == ErrorKind::Strict => return Err(error),
                Err(error) => first_error.get_or_insert(error),
            };
            self.trail.seen.truncate(depth);
        }
        // There is a name, else the opener would have said so.
        first_error.map_or(Ok(None), Err)
    }

    /// The format that the layer above states for the file that was found, if any.
    fn stated(&self, backing: &Backing, found: &Found) -> Result<Option<&'static dyn ImageFormat>> {
        let Some(name) = &backing.format else { return Ok(None) };
        let format = self.registry.find(name).map_err(|error| {
            let below = quoted(found.location.path().as_os_str().as_encoded_bytes());
            let text = format!("its backing file {below}: {error}");
            Error::new(error.kind(), text).with_advice(Advice::IgnoreExternal)
        })?;
        Ok(Some(format))
    }
}

fn check_identity(wanted: &[[u8; 16]], source: &dyn ExtentSource) -> Result<()> {
    let found = source.identifier();
    if wanted.is_empty() || found.is_some_and(|found| wanted.contains(&found)) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Corrupt, OtherParent { wanted: wanted.to_vec(), found }))
}

#[derive(Debug, thiserror::Error)]
#[error(
    "is not the parent that the image above was made from: its identifier is {}, wanted is {}",
    .found.as_ref().map_or("missing".into(), hex),
    .wanted.iter().map(hex).collect::<Vec<_>>().join(" or ")
)]
struct OtherParent {
    wanted: Vec<[u8; 16]>,
    found: Option<[u8; 16]>,
}

fn hex(bytes: &[u8; 16]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[derive(Debug, thiserror::Error)]
#[error("more than {allowed} backing files, the most that are followed: {shown}")]
struct TooDeep {
    allowed: usize,
    shown: String,
}

/// As [`Storage::identity`] has it.
type Identity = Option<(u64, u64)>;

/// The files that were passed on the way down.
#[derive(Default)]
struct Trail {
    seen: Vec<(Identity, Arc<Path>)>,
}

impl Trail {
    fn step(
        &mut self,
        storage: &Arc<dyn Storage>,
        location: &Location,
        context: &Context,
    ) -> Result<()> {
        let identity = storage.identity();
        let again = identity.is_some() && self.seen.iter().any(|(seen, _)| *seen == identity);
        self.seen.push((identity, location.shared_path()));
        if again {
            let text = format!("the images name each other in a circle: {}", self.shown());
            return Err(Error::new(ErrorKind::External, text).with_advice(Advice::IgnoreExternal));
        }
        let allowed = context.limits.depth;
        if self.seen.len() - 1 > allowed {
            // How many there are is not known: no further one is opened.
            let shown = self.shown();
            let error = Error::new(ErrorKind::Limit, TooDeep { allowed, shown });
            return Err(error.with_advice(Advice::RaiseDepth));
        }
        Ok(())
    }

    fn shown(&self) -> String {
        listed(self.seen.iter().map(|(_, path)| path.as_os_str()), " -> ")
    }
}
