// A model of one namespace, with what follows from its spec: the layout of its
// abstracts and what its chunks look like in the tiers.
//
// Thread safety: immutable; shared by the sequences that use it.

#ifndef KVTIER_DAEMON_REGISTERED_MODEL_H_
#define KVTIER_DAEMON_REGISTERED_MODEL_H_

#include <memory>
#include <string>
#include <vector>

#include "retrieval/abstract.h"
#include "retrieval/model_spec.h"
#include "tiers/chunk.h"

namespace kvtier::daemon {

struct RegisteredModel {
  // `spec` is valid.
  //   name: the namespace's
  RegisteredModel(tiers::NamespaceIndex space, const std::string& name,
                  retrieval::ModelSpec spec);

  const retrieval::LayerSpec& layer(LayerIndex index) const {
    return spec.layers[index.value()];
  }

  const retrieval::ModelSpec spec;
  const retrieval::ModelDigest digest;
  std::vector<retrieval::AbstractLayout> layouts;  // [layer]
  std::shared_ptr<const tiers::ChunkGeometry> geometry;
};

}  // namespace kvtier::daemon

#endif  // KVTIER_DAEMON_REGISTERED_MODEL_H_
