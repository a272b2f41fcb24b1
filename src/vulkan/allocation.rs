//! Several resources in one exportable allocation: their offsets, and the memory type that suits
//! all.

use super::buffer::Buffer;
use super::endpoint::Endpoint;
use super::image::Image;
use super::memory::{DedicatedTo, Memory, Side};
use super::memory_options::{
    BufferOptions, DedicatedAllocation, ImageOptions, MemoryOptions, choose_type, sum,
};
use super::requirements::Requirements;
use crate::capabilities::Dedicated;
use crate::desc::{BufferDesc, BufferUsage, ImageDesc, ResourceDesc, Tiling};
use crate::error::{Invalid, Result};

impl Endpoint {
    /// Allocates exportable memory for several resources, which are not created yet:
    /// [`BufferDesc`]s, [`ImageDesc`]s, or both as [`ResourceDesc`]s.
    ///
    /// Returns the memory and each resource's offset in it, in bytes; [`Memory::buffer`] and
    /// [`Memory::image`] create the resources. Use it to put several resources into one allocation,
    /// or to export memory before anything is bound to it.
    ///
    /// # Errors
    /// [`Missing`](crate::error::Missing) if a resource can't be exported with these options, or if
    /// no memory type suits all of them; [`Invalid`] for an invalid description, and if a resource
    /// needs a dedicated allocation.
    ///
    /// # References
    /// `bufferImageGranularity`: the distance kept between optimal images and other resources.
    #[doc(alias = "vkAllocateMemory")]
    pub fn allocate<D: Copy + Into<ResourceDesc>>(
        &self,
        descs: &[D],
        options: MemoryOptions,
    ) -> Result<(Memory, Vec<u64>)> {
        if options.dedicated == DedicatedAllocation::Always {
            return Err(Invalid::new("options.dedicated", "one allocation for several resources")
                .help("create_buffer and create_image give a resource an allocation of its own")
                .into());
        }
        let mut resources = Vec::with_capacity(descs.len());
        let (mut types, mut addressable) = (u32::MAX, false);
        for desc in descs.iter().map(|&desc| desc.into()) {
            desc.validate()?;
            let needs = match &desc {
                ResourceDesc::Buffer(desc) => {
                    addressable |= desc.usage.contains(BufferUsage::DEVICE_ADDRESS);
                    self.unbound_buffer(desc, options.handle_type, Side::Exporter)?.requirements()
                }
                ResourceDesc::Image(desc) => {
                    self.unbound_image(desc, options.handle_type, Side::Exporter)?.requirements()
                }
            };
            if needs.dedicated == Dedicated::Required {
                return Err(needs.needs_dedicated("descs").into());
            }
            types &= needs.types;
            resources.push(self.placed(&desc, &needs));
        }
        if descs.is_empty() {
            return Err(Invalid::new("descs", "is empty").help("name at least one").into());
        }
        let (offsets, size) = pack(&resources, self.buffer_image_granularity())?;
        let size = sum(size, &[options.spare_bytes])?;
        let index = choose_type(self.memory_properties(), types, options.memory)?;
        let to = DedicatedTo::Nothing;
        let memory = self.allocate_exportable(size, index, options.handle_type, to, addressable)?;
        Ok((memory, offsets))
    }

    /// Creates several buffers at offsets of one exportable allocation.
    ///
    /// # Errors
    /// Same as [`create_buffer`](Self::create_buffer); also [`Invalid`] if one of them needs a
    /// dedicated allocation.
    #[doc(alias = "vkCreateBuffer")]
    pub fn create_buffers(
        &self,
        descs: &[BufferDesc],
        options: BufferOptions,
    ) -> Result<Vec<Buffer>> {
        let (memory, offsets) = self.allocate(descs, options)?;
        descs.iter().zip(offsets).map(|(desc, offset)| memory.buffer(offset, desc)).collect()
    }

    /// Creates several images at offsets of one exportable allocation.
    ///
    /// # Errors
    /// Same as [`create_image`](Self::create_image); also [`Invalid`] if one of them needs a
    /// dedicated allocation.
    #[doc(alias = "vkCreateImage")]
    pub fn create_images(&self, descs: &[ImageDesc], options: ImageOptions) -> Result<Vec<Image>> {
        let (memory, offsets) = self.allocate(descs, options)?;
        descs.iter().zip(offsets).map(|(desc, offset)| memory.image(offset, desc)).collect()
    }

    fn placed(&self, desc: &ResourceDesc, needs: &Requirements) -> Placed {
        let (tail, is_optimal) = match desc {
            ResourceDesc::Buffer(_) => (self.workarounds().buffer_tail_bytes(), false),
            ResourceDesc::Image(image) => (0, image.tiling == Tiling::Optimal),
        };
        Placed { size: needs.size, tail, alignment: needs.alignment, is_optimal }
    }
}

/// The space that a resource takes in an allocation, in bytes.
#[derive(Clone, Copy, Debug)]
struct Placed {
    size: u64,
    /// Padding after it, in bytes.
    tail: u64,
    alignment: u64,
    /// An optimal image, which `bufferImageGranularity` keeps apart from buffers and linear images.
    is_optimal: bool,
}

/// Returns the offset of each resource, one after the other, and the size of the allocation.
fn pack(resources: &[Placed], granularity: u64) -> Result<(Vec<u64>, u64)> {
    let mut offsets = Vec::with_capacity(resources.len());
    let (mut end, mut before) = (0u64, None);
    for resource in resources {
        let changes = before.replace(resource.is_optimal) == Some(!resource.is_optimal);
        // Both are powers of two, so that a multiple of the larger is one of the other.
        let alignment =
            if changes { resource.alignment.max(granularity) } else { resource.alignment };
        let next = end.checked_next_multiple_of(alignment.max(1)).and_then(|offset| {
            Some((offset, offset.checked_add(resource.size)?.checked_add(resource.tail)?))
        });
        let Some((offset, next_end)) = next else {
            return Err(Invalid::new("descs", "are too large for one allocation").into());
        };
        offsets.push(offset);
        end = next_end;
    }
    Ok((offsets, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUFFER: Placed = Placed { size: 100, tail: 0, alignment: 16, is_optimal: false };
    const OPTIMAL: Placed = Placed { size: 100, tail: 0, alignment: 64, is_optimal: true };

    #[test]
    fn resources_of_one_kind_are_only_aligned() {
        let (offsets, size) = pack(&[BUFFER, BUFFER, BUFFER], 1024).unwrap();
        assert_eq!((offsets, size), (vec![0, 112, 224], 324));
        let (offsets, _) = pack(&[OPTIMAL, OPTIMAL], 1024).unwrap();
        assert_eq!(offsets, [0, 128]);
    }

    #[test]
    fn linear_and_optimal_resources_are_a_granularity_apart() {
        let (offsets, size) = pack(&[BUFFER, OPTIMAL, OPTIMAL, BUFFER], 1024).unwrap();
        assert_eq!((offsets, size), (vec![0, 1024, 1152, 2048], 2148));
        // The alignment still counts if it is the larger one.
        let (offsets, _) = pack(&[BUFFER, OPTIMAL], 16).unwrap();
        assert_eq!(offsets, [0, 128]);
    }

    #[test]
    fn spare_bytes_belong_to_the_resource_before_them() {
        let padded = Placed { tail: 64, ..BUFFER };
        let (offsets, size) = pack(&[padded, padded], 1).unwrap();
        assert_eq!((offsets, size), (vec![0, 176], 340));
    }

    #[test]
    fn sizes_that_overflow_are_refused() {
        let huge = Placed { size: u64::MAX - 8, ..BUFFER };
        for resources in [[huge, BUFFER], [BUFFER, huge], [Placed { tail: 64, ..huge }, BUFFER]] {
            assert!(pack(&resources, 1).is_err(), "{resources:?}");
        }
    }
}
