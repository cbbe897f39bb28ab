#include "daemon/registered_model.h"

#include <algorithm>
#include <utility>

namespace kvtier::daemon {

RegisteredModel::RegisteredModel(tiers::NamespaceIndex space, const std::string& name,
                                 retrieval::ModelSpec model_spec)
    : spec(std::move(model_spec)), digest(spec.Digest()) {
  auto chunk_geometry = std::make_shared<tiers::ChunkGeometry>(space);
  auto disk_geometry = std::make_shared<tiers::DiskGeometry>();
  disk_geometry->space = name;
  disk_geometry->model_digest = digest;
  for (const retrieval::LayerSpec& layer : spec.layers) {
    layouts.push_back(retrieval::AbstractLayout::For(layer, spec.abstracts));
    chunk_geometry->AddLayer(
        layer.kv_heads, layer.PageBytes(spec.dtype),
        std::max<size_t>(1, layer.kv_heads * layouts.back().page_abstract_bytes));
    const tiers::BlockGeometry& block = chunk_geometry->layers.back();
    disk_geometry->layers.push_back({block.kv_heads,
                                     static_cast<uint32_t>(block.page_bytes),
                                     static_cast<uint32_t>(block.abstract_bytes)});
  }
  chunk_geometry->disk = std::move(disk_geometry);
  geometry = std::move(chunk_geometry);
}

}  // namespace kvtier::daemon
