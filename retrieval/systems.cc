// The list of all systems: the only place that knows every one of them.

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "retrieval/pipeline.h"
#include "retrieval/system.h"

namespace kvtier::retrieval {
namespace {

constexpr Declaration (*kDeclarations[])() = {FullSystem, WindowSystem, QuestSystem,
                                              OracleSystem, KvtierSystem};

}  // namespace

std::vector<std::string> System::Names() {
  std::vector<std::string> names;
  for (const auto declare : kDeclarations) names.push_back(declare().name);
  return names;
}

absl::StatusOr<std::unique_ptr<const System>> System::Create(
    const SystemOptions& options) {
  for (const auto declare : kDeclarations) {
    Declaration declaration = declare();
    if (declaration.name == options.system) {
      return MakePipeline(std::move(declaration), options);
    }
  }
  return absl::InvalidArgumentError(
      absl::StrCat("unknown system '", options.system,
                   "'; there are: ", absl::StrJoin(Names(), ", ")));
}

}  // namespace kvtier::retrieval
