#include "daemon/registered_model.h"

#include <algorithm>
#include <utility>

namespace kvtier::daemon {

RegisteredModel::RegisteredModel(tiers::NamespaceIndex space,
                                 retrieval::ModelSpec model_spec)
    : spec(std::move(model_spec)), digest(spec.Digest()) {
  auto chunk_geometry = std::make_shared<tiers::ChunkGeometry>(space);
  for (const retrieval::LayerSpec& layer : spec.layers) {
    layouts.push_back(retrieval::AbstractLayout::For(layer, spec.abstracts));
    chunk_geometry->AddLayer(
        layer.kv_heads, layer.PageBytes(spec.dtype),
        std::max<size_t>(1, layer.kv_heads * layouts.back().page_abstract_bytes));
  }
  geometry = std::move(chunk_geometry);
}

}  // namespace kvtier::daemon
