#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace longnet {

/// Tokens of a FASTA file: A C G T are 0 1 2 3 (U is T; lower case is the same), every other IUPAC letter (N R Y S W K
/// M B D H V) is 4, and 5 stands before the bases of each record.
constexpr std::int64_t fasta_vocabulary = 6;

/// The letters of tokens 0 to 5, for printing.
constexpr char fasta_letters[] = "ACGTN>";

/// Writes the tokens of each FASTA file (plain, .gz or .xz), a byte a token, into `folder` and returns the written
/// files. A file that is there from an earlier call for the same source is kept. Throws DataError, with file and line,
/// for anything that is no FASTA.
std::vector<std::filesystem::path> cache_fasta(const std::vector<std::filesystem::path>& sources,
                                               const std::filesystem::path& folder);

}  // namespace longnet
