// Writes JSON: objects and arrays of strings and whole numbers, which is all that
// kvtierctl prints. Keys keep the order in which they are written, so output is stable.
//
// Thread safety: none; one owner.

#ifndef KVTIER_CLIENT_CLI_JSON_H_
#define KVTIER_CLIENT_CLI_JSON_H_

#include <cstdint>
#include <string>

namespace kvtier::cli {

class JsonWriter {
 public:
  // `key` is null in an array and at the top.
  void BeginObject(const char* key = nullptr) { Begin(key, '{'); }
  void EndObject() { End('}'); }
  void BeginArray(const char* key = nullptr) { Begin(key, '['); }
  void EndArray() { End(']'); }
  void Field(const char* key, const std::string& value);
  void Field(const char* key, uint64_t value);
  // Of an array.
  void Item(const std::string& value);

  const std::string& text() const { return text_; }

 private:
  void Begin(const char* key, char bracket);
  void End(char bracket);
  void Key(const char* key);

  std::string text_;
  bool first_ = true;
};

// With quotes; control characters and what isn't UTF-8's business are escaped.
std::string JsonString(const std::string& text);

}  // namespace kvtier::cli

#endif  // KVTIER_CLIENT_CLI_JSON_H_
