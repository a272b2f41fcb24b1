//! OpenGL's ends of a handoff: waits and signals with lists of buffers and textures.

use smallvec::SmallVec;

use super::contents::{Contents, acquired_by_gl};
use super::peer::{Completion, End, HandoffPeer, SemaphoreOps, sealed};
use super::wait::HostFence;
use crate::desc::ImageLayout;
use crate::error::{Invalid, Mismatch, Result};
use crate::gl::{Buffer, Endpoint, Semaphore, Texture, texture_layouts};
use crate::vulkan::List;

/// A texture, and the layout in which it is handed over.
///
/// If the layout is left out, a release uses `VK_IMAGE_LAYOUT_GENERAL`, and an acquire uses the
/// layout of the release. [`ImageLayout::UNDEFINED`] at an acquire discards the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TextureAccess {
    /// The texture's name in the endpoint's context.
    pub texture: glow::Texture,
    /// The layout; default `None`.
    pub layout: Option<ImageLayout>,
}

impl From<glow::NativeTexture> for TextureAccess {
    fn from(texture: glow::NativeTexture) -> Self {
        Self { texture, layout: None }
    }
}

impl From<&Texture> for TextureAccess {
    fn from(texture: &Texture) -> Self {
        texture.name().into()
    }
}

impl From<(glow::NativeTexture, ImageLayout)> for TextureAccess {
    fn from((texture, layout): (glow::NativeTexture, ImageLayout)) -> Self {
        Self { texture, layout: Some(layout) }
    }
}

/// The buffers and textures that a release or an acquire by OpenGL makes visible. List every shared
/// one that is used.
///
/// Converts from a buffer or a texture; from a slice, or a reference to an array or `Vec`, of
/// buffers or of [`TextureAccess`]; or from a pair of slices of both. `()` lists nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct GlCommands<'a> {
    buffers: List<'a, &'a Buffer>,
    /// In the same order on both sides of the handoff.
    textures: List<'a, TextureAccess>,
}

macro_rules! commands_from {
    ($($field:ident: $item:ty),*) => {$(
        impl<'a> From<&'a [$item]> for GlCommands<'a> {
            fn from(many: &'a [$item]) -> Self {
                Self { $field: List::Many(many), ..Self::default() }
            }
        }

        impl<'a, const N: usize> From<&'a [$item; N]> for GlCommands<'a> {
            fn from(many: &'a [$item; N]) -> Self {
                many.as_slice().into()
            }
        }

        impl<'a> From<&'a Vec<$item>> for GlCommands<'a> {
            fn from(many: &'a Vec<$item>) -> Self {
                many.as_slice().into()
            }
        }
    )*};
}

commands_from!(buffers: &'a Buffer, textures: TextureAccess);

impl<'a> From<&'a Buffer> for GlCommands<'a> {
    fn from(buffer: &'a Buffer) -> Self {
        Self { buffers: List::One(buffer), ..Self::default() }
    }
}

impl From<TextureAccess> for GlCommands<'_> {
    fn from(texture: TextureAccess) -> Self {
        Self { textures: List::One(texture), ..Self::default() }
    }
}

impl From<&Texture> for GlCommands<'_> {
    fn from(texture: &Texture) -> Self {
        TextureAccess::from(texture).into()
    }
}

impl From<()> for GlCommands<'_> {
    fn from((): ()) -> Self {
        Self::default()
    }
}

impl<'a> From<(&'a [&'a Buffer], &'a [TextureAccess])> for GlCommands<'a> {
    fn from((buffers, textures): (&'a [&'a Buffer], &'a [TextureAccess])) -> Self {
        Self { buffers: List::Many(buffers), textures: List::Many(textures) }
    }
}

/// Textures with their layouts, as `Endpoint::wait` and `Endpoint::signal` list them.
type InLayouts = SmallVec<[(glow::Texture, ImageLayout); 4]>;

impl sealed::Sealed for Endpoint {}

impl HandoffPeer for Endpoint {
    type Commands<'a> = GlCommands<'a>;
    type Sync = ();
    type Fences = ();
    const SUBMITS: bool = true;

    fn fences(&self) -> Result<()> {
        Ok(())
    }

    fn check_layout(layout: ImageLayout) -> Result<()> {
        if texture_layouts().any(|known| known == layout) {
            return Ok(());
        }
        Err(Invalid::new("layout", format!("{layout}, which OpenGL doesn't have"))
            .help("release the image in VK_IMAGE_LAYOUT_GENERAL")
            .into())
    }

    fn contents(commands: &GlCommands<'_>) -> Contents {
        let layouts = commands.textures.iter().map(|texture| texture.layout);
        Contents::of_gl(commands.buffers.len(), layouts)
    }

    fn enqueue_release(
        &self,
        (): &(),
        commands: GlCommands<'_>,
        completion: Completion<'_, Semaphore>,
        end: End<'_>,
    ) -> Result<((), Option<HostFence>)> {
        check_own(self, &commands)?;
        self.mark_released(&commands.buffers, names(&commands), end.channel.id)?;
        release(self, &commands, completion).inspect_err(|_| {
            self.mark_acquired(&commands.buffers, names(&commands));
        })
    }

    fn enqueue_acquire(
        &self,
        commands: GlCommands<'_>,
        contents: &Contents,
        waits: SemaphoreOps<'_, Semaphore>,
        _end: End<'_>,
    ) -> Result<()> {
        check_own(self, &commands)?;
        let released = contents.of_each(commands.buffers.len(), commands.textures.len())?;
        let textures =
            commands.textures.iter().zip(released).map(|(named, released)| {
                Ok((named.texture, acquired_by_gl(released, named.layout)?))
            });
        let textures: InLayouts = textures.collect::<Result<_>>()?;
        if waits.is_empty() {
            // OpenGL's caches must not hide what the other side wrote.
            self.memory_barrier()?;
        }
        for (semaphore, value) in waits {
            self.wait(semaphore, value, &commands.buffers, &textures)?;
        }
        self.mark_acquired(&commands.buffers, names(&commands));
        Ok(())
    }
}

fn names(commands: &GlCommands<'_>) -> impl Iterator<Item = glow::Texture> + Clone {
    commands.textures.iter().map(|named| named.texture)
}

fn release(
    endpoint: &Endpoint,
    commands: &GlCommands<'_>,
    completion: Completion<'_, Semaphore>,
) -> Result<((), Option<HostFence>)> {
    match completion {
        Completion::HostWait(host) => {
            endpoint.with_fence(|fence| {
                host.run(|timeout| fence.wait(timeout), || fence.is_signaled())
            })?;
            Ok(((), Some(HostFence::Done)))
        }
        Completion::Signal(ops) => {
            let named =
                |one: &TextureAccess| (one.texture, one.layout.unwrap_or(ImageLayout::GENERAL));
            let textures: InLayouts = commands.textures.iter().map(named).collect();
            for (semaphore, value) in ops {
                endpoint.signal(semaphore, value, &commands.buffers, &textures)?;
            }
            Ok(((), None))
        }
    }
}

/// Rejects resources from another endpoint or context. With a host wait the lists reach no OpenGL
/// call, so a mistake in them would go unnoticed until another method is used.
fn check_own(endpoint: &Endpoint, commands: &GlCommands<'_>) -> Result<()> {
    let GlCommands { buffers, textures } = commands;
    if let Some(at) = buffers.iter().position(|buffer| !buffer.is_of(endpoint)) {
        let found = format!("buffer {at} of {} belongs to another", buffers.len());
        return Err(Mismatch::new("the buffers' OpenGL endpoint", "the handoff's", found)
            .help("list buffers that this endpoint, or one that shares with it, imported")
            .into());
    }
    if textures.is_empty() {
        return Ok(());
    }
    if let Some(texture) = endpoint.find_no_texture(names(commands))? {
        let found = format!("texture {}, which doesn't exist in this context", texture.0);
        return Err(Mismatch::new("the textures' OpenGL context", "the endpoint's", found)
            .help("list textures of the endpoint's own context")
            .into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::capabilities::SyncMethod;
    use crate::gl::tests::{recorded_endpoint, recorded_names};
    use crate::handoff::channel::Channel;
    use crate::handoff::wait::{HostWait, WaitMode};
    use crate::vulkan::Half;

    #[test]
    fn a_release_by_host_wait_waits_for_a_fence() {
        let endpoint = recorded_endpoint();
        let host = HostWait { mode: WaitMode::Block, timeout: Duration::from_secs(1) };
        let (_, fence) = release(&endpoint, &().into(), Completion::HostWait(host)).unwrap();
        assert!(matches!(fence, Some(HostFence::Done)));
        let calls =
            ["glMemoryBarrier", "glFenceSync", "glFlush", "glClientWaitSync", "glDeleteSync"];
        assert_eq!(recorded_names(), calls);
    }

    /// The host has waited, but OpenGL's caches still have what they had.
    #[test]
    fn an_acquire_after_a_host_wait_begins_with_a_barrier() {
        let endpoint = recorded_endpoint();
        let host = HostWait { mode: WaitMode::Block, timeout: Duration::from_secs(1) };
        let channel = Channel::new(SyncMethod::HostWait, host, 1, Endpoint::check_layout);
        let end = End { channel: &Arc::new(channel), half: Half::Acquire(1) };
        let waits = SemaphoreOps::new();
        endpoint.enqueue_acquire(().into(), &Contents::UNKNOWN, waits, end).unwrap();
        assert_eq!(recorded_names(), ["glMemoryBarrier"]);
    }
}
