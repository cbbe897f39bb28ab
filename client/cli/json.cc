#include "client/cli/json.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace kvtier::cli {

std::string JsonString(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      absl::StrAppendFormat(&out, "\\u%04x", c);
    } else {
      out += c;
    }
  }
  return out + "\"";
}

void JsonWriter::Key(const char* key) {
  if (!first_) text_ += ", ";
  first_ = false;
  if (key != nullptr) absl::StrAppend(&text_, JsonString(key), ": ");
}

void JsonWriter::Begin(const char* key, char bracket) {
  Key(key);
  text_ += bracket;
  first_ = true;
}

void JsonWriter::End(char bracket) {
  text_ += bracket;
  first_ = false;
}

void JsonWriter::Field(const char* key, const std::string& value) {
  Key(key);
  text_ += JsonString(value);
}

void JsonWriter::Item(const std::string& value) {
  Key(nullptr);
  text_ += JsonString(value);
}

void JsonWriter::Field(const char* key, uint64_t value) {
  Key(key);
  absl::StrAppend(&text_, value);
}

}  // namespace kvtier::cli
